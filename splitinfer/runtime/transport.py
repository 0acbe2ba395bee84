"""The one place that opens channels and binds servers: options, addresses, names of methods."""

from __future__ import annotations

import errno
import re
import socket

import grpc

from splitinfer.errors import InputError
from splitinfer.runtime.door import channel_credentials, server_credentials
from splitinfer.runtime.settings import LEAST_KEEPALIVE_S, ClientSettings, ServerSettings
from splitinfer.wire import splitinfer_pb2 as pb

SERVICE: str = pb.DESCRIPTOR.services_by_name["SplitInference"].full_name
DESCRIBE = f"/{SERVICE}/Describe"
SENDER = "splitinfer-sender"
"""Metadata that names one client: ids of requests count in it, and a repeated one is answered once."""
WINDOW = "splitinfer-window"
"""Metadata of a stream: how many requests its client has under way. With more than one, the next is read ahead."""
INFER = f"/{SERVICE}/Infer"
INFER_STREAM = f"/{SERVICE}/InferStream"

Options = list[tuple[str, int]]
Metadata = tuple[tuple[str, str], ...]


def open_channel(target: str, settings: ClientSettings) -> grpc.Channel:
    """Return a channel to a server, which connects at its first call."""
    credentials, options = channel_credentials(settings.security), _client_options(settings)
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def open_async_channel(target: str, settings: ClientSettings) -> grpc.aio.Channel:
    """Return a channel for asyncio to a server, which connects at its first call."""
    credentials, options = channel_credentials(settings.security), _client_options(settings)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def listen(server: grpc.Server, settings: ServerSettings) -> str:
    """Bind a server and return ``host:port``, an IPv6 address in brackets.

    Raises:
        InputError: the address cannot be listened on.
    """
    host = settings.host
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    try:
        if settings.security.is_encrypted:
            port = server.add_secure_port(f"{bracketed}:{settings.port}", server_credentials(settings.security))
        else:
            port = server.add_insecure_port(f"{bracketed}:{settings.port}")
    except RuntimeError:
        port = 0
    if not port:
        raise _cannot_listen(settings)
    return f"{bracketed}:{port}"


def check_free(settings: ServerSettings) -> None:
    """Refuse an address that cannot be listened on now, before anything that takes long.

    Raises:
        InputError: it cannot.
    """
    try:
        family, *_, address = socket.getaddrinfo(settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen()
    except OSError as error:
        raise _cannot_listen(settings, error) from None


_WHY = {
    errno.EADDRINUSE: "another program listens there",
    errno.EACCES: "this user may not",
    errno.EADDRNOTAVAIL: "this host has no such address",
}


def _cannot_listen(settings: ServerSettings, error: OSError | None = None) -> InputError:
    host = f"[{settings.host}]" if ":" in settings.host and not settings.host.startswith("[") else settings.host
    words = None if error is None else _WHY.get(error.errno or 0, error.strerror)
    return InputError(f"cannot listen on {host}:{settings.port}: {words or 'in use, not allowed, or no such address'}")


def checked_target(target: str) -> str:
    """Return ``host:port`` as given.

    Raises:
        InputError: it is something else.
    """
    # No URL: its scheme would be looked up as a host, for as long as one waits for a server.
    found = re.fullmatch(r"[^\s/@]{1,255}:([0-9]{1,5})", target.strip()) if isinstance(target, str) else None
    if found is None or not 0 < int(found[1]) < 1 << 16:
        raise InputError(f"an edge server's address is HOST:PORT, not {target!r}")
    return target.strip()


def server_options(settings: ServerSettings) -> Options:
    """Return the options of a server; each line says why it differs from gRPC's default."""
    keepalive_ms = int(settings.keepalive_s * 1e3)
    return [
        # The default of 4 MiB is less than one feature map of 64x224x224.
        ("grpc.max_receive_message_length", settings.limits.max_message_bytes),
        ("grpc.max_send_message_length", settings.limits.max_message_bytes),
        # By default two servers may listen on one port and share its clients, which hides a second start.
        ("grpc.so_reuseport", 0),
        # Find clients that are gone without a word, whose streams would hold a thread for ever.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.http2.ping_timeout_ms", keepalive_ms),  # 60 s by default, where the bytes are acknowledged
        # Let clients ask whether we are there: more often is never asked (LEAST_KEEPALIVE_S), and ends a connection.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(LEAST_KEEPALIVE_S * 1e3 / 2)),
        # What a client sends to probe the bandwidth is a ping too; a few in a row ended a device's stream.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        *_of_age(settings),
    ]


def _of_age(settings: ServerSettings) -> Options:
    if settings.max_connection_age_s is None:
        return []
    age_ms, grace_ms = int(settings.max_connection_age_s * 1e3), int(settings.drain_s * 1e3)
    return [("grpc.max_connection_age_ms", age_ms), ("grpc.max_connection_age_grace_ms", grace_ms)]


def _client_options(settings: ClientSettings) -> Options:
    """Return the options of a channel; each line says why it differs from gRPC's default."""
    keepalive_ms = int(settings.keepalive_s * 1e3)
    return [
        ("grpc.max_receive_message_length", settings.limits.max_message_bytes),
        ("grpc.max_send_message_length", settings.limits.max_message_bytes),
        # Its own connection, so that a new client never inherits the waiting time of an old one's failed attempts.
        ("grpc.use_local_subchannel_pool", 1),
        # The defaults wait 1 s to 2 min before trying again; an edge that restarts is back sooner.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # A peer that vanishes without closing the connection is noticed, also between calls.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.http2.ping_timeout_ms", keepalive_ms),  # 60 s by default, where the bytes are acknowledged
        ("grpc.http2.max_pings_without_data", 0),
        # A proxy between device and edge would be a mistake of the environment, never a wish.
        ("grpc.enable_http_proxy", 0),
    ]
