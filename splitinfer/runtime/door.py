"""What stands before a server's methods and behind its port: credentials, and the names of peers."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any

import grpc

from splitinfer.errors import RemoteError
from splitinfer.runtime.security import (
    AUTHORIZATION,
    SCHEME,
    SYSTEM,
    ClientSecurity,
    ServerSecurity,
    Watched,
    check_pair,
    read_file,
    read_tokens,
    token_of_environment,
)

_OPEN_TO_ALL = frozenset({"/grpc.health.v1.Health/Check"})
"""Methods that need no token: whoever watches over an edge learns only whether it is well."""

logger = logging.getLogger(__name__)

_UNKNOWN = "this edge asks for a token that it knows"
_Digests = tuple[tuple[str, bytes], ...]


def server_credentials(security: ServerSecurity) -> grpc.ServerCredentials:
    """Return the credentials of a port, read again at a handshake where the files have changed."""
    cert, key, ca = security.tls_cert, security.tls_key, security.client_ca
    assert cert is not None
    assert key is not None

    def read() -> Any:
        check_pair(cert, key)
        roots = None if ca is None else read_file(ca)
        return grpc.ssl_server_certificate_configuration([(read_file(key), read_file(cert))], root_certificates=roots)

    files = Watched([cert, key, *([] if ca is None else [ca])], read)
    shown = [files.value]

    def changed() -> Any:
        current = files.current()
        if current is shown[0]:
            return None
        shown[0] = current
        return current

    return grpc.dynamic_ssl_server_credentials(shown[0], changed, require_client_authentication=ca is not None)


def channel_credentials(security: ClientSecurity) -> grpc.ChannelCredentials | None:
    """Return the credentials of a channel, from the files as they are now; None for plain text."""
    if security.tls_ca is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=None if security.tls_ca == SYSTEM else read_file(security.tls_ca),
        private_key=read_file(security.tls_key) if security.tls_key else None,
        certificate_chain=read_file(security.tls_cert) if security.tls_cert else None,
    )


class Door:
    """Says who a peer is, and keeps out whom the server does not know.

    Args:
        security: of the server.
    """

    def __init__(self, security: ServerSecurity) -> None:
        self._names_peers = security.client_ca is not None
        file = security.token_file
        self._tokens: Watched[_Digests] | None = None
        if file is not None:
            self._tokens = Watched([file], lambda: _digests(read_tokens(file)))
        elif (token := token_of_environment()) is not None:
            self._tokens = Watched([], lambda: _digests([("", token)]))

    @property
    def interceptors(self) -> tuple[grpc.ServerInterceptor, ...]:
        """What stands before every method of a server."""
        return (_Bouncer(self),) if self._tokens is not None else ()

    def identity(self, context: grpc.ServicerContext) -> str:
        """Return the peer's name, empty if it has none.

        Raises:
            RemoteError: it has no right token, or its certificate and token have two names.
        """
        of_token = self.name_of_token(context.invocation_metadata()) if self._tokens is not None else ""
        if of_token is None:
            raise RemoteError(_UNKNOWN, status="UNAUTHENTICATED")
        names = context.auth_context().get("x509_common_name", ()) if self._names_peers else ()
        of_certificate = names[0].decode("utf-8", "replace") if names else ""
        if of_token and of_certificate and of_token != of_certificate:
            raise RemoteError(
                f"the certificate names {of_certificate!r} and the token {of_token!r}; they have to name the same",
                status="PERMISSION_DENIED",
            )
        return of_certificate or of_token

    def name_of_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
        """Return the name of the token in a call's metadata, None if it is not a right one; takes the same time."""
        assert self._tokens is not None
        given = next((value for key, value in metadata if key == AUTHORIZATION), "")
        if isinstance(given, bytes):
            given = given.decode("latin-1")
        digest = sha256(given.removeprefix(SCHEME).encode()).digest()
        found = None
        for name, known in self._tokens.current():
            if hmac.compare_digest(digest, known):
                found = name
        return found if given.startswith(SCHEME) else None


class _Bouncer(grpc.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, door: Door) -> None:
        self._door = door

    def intercept_service(self, continuation: Callable[[Any], Any], call: Any) -> Any:
        if call.method in _OPEN_TO_ALL or self._door.name_of_token(call.invocation_metadata) is not None:
            return continuation(call)
        logger.warning("refused a call of %s without a token that is known", call.method)
        # A stream, whatever the method is: it answers before anything was read.
        return grpc.stream_stream_rpc_method_handler(_refuse)


def _refuse(requests: Any, context: grpc.ServicerContext) -> Any:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, _UNKNOWN)


def _digests(tokens: Sequence[tuple[str, str]]) -> _Digests:
    return tuple((name, sha256(token.encode()).digest()) for name, token in tokens)
