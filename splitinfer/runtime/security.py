"""Who may connect, and what keeps the connection private: certificates, tokens, and the names behind them.

A peer is known by the name in its certificate (mutual TLS), by the name of its token, or not at all. Its places at the
edge and the answers kept for it belong to that name; ``device-3`` may only be device 3 of a live run. Files are read
again when they change, so that certificates and tokens are renewed without a restart.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from splitinfer.errors import InputError, RemoteError
from splitinfer.files import check_file

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "SPLITINFER_TOKEN"
SYSTEM = "system"
"""In place of a CA's file: the public CAs that gRPC brings along."""

AUTHORIZATION = "authorization"
SCHEME = "Bearer "
_TOKEN = re.compile(r"[!-~]{1,4096}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_MAX_FILE_BYTES = 1 << 20
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class ServerSecurity:
    """What a server shows and asks for. Without any of it, everybody who reaches the port is served, in plain text.

    Attributes:
        tls_cert, tls_key: PEM files of the server's certificate (with its chain) and key; both or none.
        client_ca: PEM file of the CA that every client's certificate must come from (mutual TLS).
        token_file: one token a line, ``TOKEN`` or ``NAME TOKEN``; clients must have one of them. The environment's
            SPLITINFER_TOKEN does the same where no file is given.
    """

    tls_cert: str | None = None
    tls_key: str | None = None
    client_ca: str | None = None
    token_file: str | None = None

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("tls_cert and tls_key belong together: give both or none")
        if self.client_ca is not None and self.tls_cert is None:
            raise InputError("client_ca: clients show certificates only over TLS; give tls_cert and tls_key too")
        if self.tls_cert is not None and self.tls_key is not None:
            check_pair(self.tls_cert, self.tls_key)
        if self.client_ca is not None:
            _check_ca(self.client_ca)
        if self.token_file is not None:
            read_tokens(self.token_file)

    @property
    def is_encrypted(self) -> bool:
        return self.tls_cert is not None


@dataclass(frozen=True)
class ClientSecurity:
    """What a client trusts and shows.

    Attributes:
        tls_ca: PEM file of the CA that the server's certificate must come from, or ``system`` for the public ones; the
            connection is encrypted if given.
        tls_cert, tls_key: PEM files of the client's own certificate and key, for servers that ask for one.
        token_file: holds the client's token, ``TOKEN`` or ``NAME TOKEN`` on its first line; otherwise the environment's
            SPLITINFER_TOKEN is sent, if set.
    """

    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("tls_cert and tls_key belong together: give both or none")
        if self.tls_cert is not None and self.tls_ca is None:
            raise InputError("tls_cert: a certificate is shown only over TLS; give tls_ca too")
        if self.tls_cert is not None and self.tls_key is not None:
            check_pair(self.tls_cert, self.tls_key)
        if self.tls_ca not in (None, SYSTEM):
            _check_ca(self.tls_ca)
        if self.token_file is not None:
            read_tokens(self.token_file)

    def metadata(self, target: str) -> tuple[tuple[str, str], ...]:
        """Return what every call to ``target`` carries.

        Raises:
            InputError: a token would cross a network in plain text.
        """
        token = self._token()
        if token is None:
            return ()
        host = target.rpartition(":")[0]
        if self.tls_ca is None and not is_loopback(host):
            raise InputError(f"a token is not sent to {target} in plain text; give --tls-ca (tls_ca=)")
        return ((AUTHORIZATION, SCHEME + token),)

    def _token(self) -> str | None:
        if self.token_file is not None:
            return read_tokens(self.token_file)[0][1]
        return token_of_environment()


def check_device(identity: str, device: int) -> None:
    """Refuse a peer that says it is a device with another's number in its name.

    Raises:
        RemoteError: ``identity`` is ``device-N`` with another N.
    """
    own = re.fullmatch(r"device-(\d{1,9})", identity)
    if own is not None and int(own[1]) != device:
        raise RemoteError(f"{identity} may not be device {device}", status="PERMISSION_DENIED")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Watched(Generic[_Value]):
    """What files hold, read again when they change; while they cannot be read, what they held."""

    def __init__(self, files: Sequence[str], read: Callable[[], _Value]) -> None:
        self._files = files
        self._read = read
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self.value = read()

    def current(self) -> _Value:
        """Return what the files hold now."""
        with self._lock:
            stamps = self._stamps()
            if stamps != self._seen:
                self._seen = stamps
                try:
                    self.value = self._read()
                    logger.info("read %s again", ", ".join(self._files))
                except InputError as error:
                    logger.warning("%s; what was read before stays in force", error)
            return self.value

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        stamps: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                status = os.stat(file)  # noqa: PTH116 - called often
                stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                stamps.append(None)
        return stamps


def read_tokens(file: str) -> list[tuple[str, str]]:
    """Return (name, token) of every line; messages never hold a token."""
    text = read_file(file).decode("ascii", "replace")
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or line.lstrip().startswith("#"):
            continue
        name, token = fields if len(fields) == 2 else ("", fields[0])
        if len(fields) > 2 or not _TOKEN.fullmatch(token) or (name and not _NAME.fullmatch(name)):
            raise InputError(f"{file}, line {number}: a line is TOKEN or NAME TOKEN, of printable ASCII")
        tokens.append((name, token))
    if not tokens:
        raise InputError(f"{file} holds no token; a line is TOKEN or NAME TOKEN")
    return tokens


def token_of_environment() -> str | None:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token and not _TOKEN.fullmatch(token):
        raise InputError(f"{TOKEN_VARIABLE}: a token is printable ASCII without spaces")
    return token or None


def read_file(file: str) -> bytes:
    try:
        check_file(file)
        with Path(file).open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise InputError(f"{file} is no certificate, key or list of tokens: it has more than {_MAX_FILE_BYTES} bytes")
    return data


def check_pair(cert: str, key: str) -> None:
    for file in (cert, key):
        read_file(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not PEM"
        raise InputError(f"{cert} and {key} are no certificate and its unencrypted key ({reason})") from None


def _no_password() -> str:
    return ""


def _check_ca(file: str | None) -> None:
    assert file is not None
    read_file(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (ssl.SSLError, ValueError):
        raise InputError(f"{file} is no PEM file of a CA's certificate") from None
