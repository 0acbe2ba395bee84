"""The one table between splitinfer's errors and gRPC's status codes, read in both directions."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable

import grpc

from splitinfer.errors import (
    DeadlineError,
    EdgeUnavailableError,
    InputError,
    ModelMismatchError,
    RemoteError,
    SplitInferError,
)
from splitinfer.wire.limits import LimitError

logger = logging.getLogger(__name__)


class StreamEndedError(EdgeUnavailableError):
    """One call or stream was ended from outside; others on the connection go on."""


class WrongEdgeError(EdgeUnavailableError):
    """What listens there is not the edge that this end is set up for; waiting does not mend it."""


# The first row that fits counts, so a class stands before its base.
_CODE_OF: tuple[tuple[type[SplitInferError], grpc.StatusCode], ...] = (
    (LimitError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (ModelMismatchError, grpc.StatusCode.FAILED_PRECONDITION),
    (DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (EdgeUnavailableError, grpc.StatusCode.UNAVAILABLE),
)
_ERROR_OF: dict[grpc.StatusCode, type[RemoteError]] = {
    code: error for error, code in _CODE_OF if issubclass(error, RemoteError)
}
RETRY_AFTER = "grpc-retry-pushback-ms"
"""Metadata in which a busy edge says when to ask again."""
_MAX_HINT_DIGITS = 6
_MOST_MESSAGE_BYTES = 2000  # up to three times as many where gRPC writes them as %XX, of 8 KiB
_WRONG = (
    ("certificate has expired", "its certificate has expired, or this clock is wrong"),
    ("certificate is not yet valid", "its certificate is not valid yet, or this clock is wrong"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate does not come from the CA that this end trusts"),
    ("Hostname Verification", "its certificate is for other host names than this one"),
    ("WRONG_VERSION_NUMBER", "it speaks plain text and this end TLS"),
)
_TROUBLE = (
    *_WRONG,
    ("Connection refused", "nothing listens there"),
    ("Domain name not found", "no host of that name is known"),
    ("DNS resolution failed", "no host of that name is known"),
    ("Could not contact DNS", "no host of that name is known"),
    ("errors resolving", "no host of that name is known"),
    ("No route to host", "no way leads to that host"),
    ("Network is unreachable", "no way leads to that host"),
    ("Connection timed out", "that host does not answer"),
    ("Timeout occurred: FD Shutdown", "that host does not answer"),
    ("Connection reset by peer", "it closed the connection"),
    ("Broken pipe", "it closed the connection"),
    ("keepalive watchdog timeout", "nothing was heard from it any more"),
    ("GOAWAY received", "it is stopping"),
    ("Cancelling all calls", "it is stopping"),
    ("Socket closed", "it closed the connection; it may want TLS, or another certificate of this end"),
)
"""What gRPC says when there is no connection, or it is lost, and what that means."""
_LOST = ("Stream removed", "Received RST_STREAM")
"""How gRPC's details begin where a connection broke under a call and it did not find out why: UNKNOWN or INTERNAL."""
_NO_METHOD = "Method not found"
"""How gRPC's own refusal begins of a call that a server does not offer."""
_TOO_LARGE = re.compile(r"Received message larger than max \((\d+) vs\. (\d+)\)")
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def refusal(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the status and message that a client gets for an error in a handler.

    Errors that splitinfer raises on purpose travel as they are; a ``RemoteError`` keeps the status that it names. Any
    other is logged in full here, and the client gets a number to find it by. What strangers named may be long, and a
    message that does not fit into HTTP/2's headers would be replaced by another status: it is cut.
    """
    code, message = _refusal(error)
    return code, message.encode("utf-8", "replace")[:_MOST_MESSAGE_BYTES].decode("utf-8", "ignore")


def _refusal(error: Exception) -> tuple[grpc.StatusCode, str]:
    for kind, code in _CODE_OF:
        if isinstance(error, kind):
            return code, str(error)
    if isinstance(error, RemoteError):
        return grpc.StatusCode[error.status], str(error)
    if isinstance(error, grpc.RpcError):  # gRPC's word for a call that ended under its handler
        return grpc.StatusCode.CANCELLED, "the call was ended by the other side"
    number = secrets.token_hex(4)
    logger.error("internal error %s", number, exc_info=error)
    return grpc.StatusCode.INTERNAL, f"internal error {number}; the server's log has the details"


def remote_error(code: grpc.StatusCode | int, message: str) -> RemoteError:
    """Return the error that a client raises for a status."""
    if isinstance(code, int):
        code = _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
    return _ERROR_OF.get(code, RemoteError)(message or code.name, status=code.name)


def error_of_call(error: grpc.RpcError, target: str) -> RemoteError:
    """Return the error that a client raises for a failed call to ``target``."""
    return error_of_status(error.code().value[0], error.details() or "", target, error.trailing_metadata() or ())


def error_of_status(
    number: int, details: str, target: str, trailing: Iterable[tuple[str, str | bytes]] = ()
) -> RemoteError:
    """Return the error that a client raises for the status that ended a call to ``target``."""
    code = _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)
    lines = details.strip().splitlines()
    message = lines[0] if lines else code.name
    too_large = _TOO_LARGE.search(details)
    if too_large:
        # gRPC's own words ("Stream removed") hide that this is a setting of ours.
        size, limit = (f"{int(number):,}" for number in too_large.groups())
        return RemoteError(
            f"a message of {size} bytes from {target} is over max_message_bytes, {limit} here; raise it "
            "(WireLimits, or --max-message-mib)",
            status=grpc.StatusCode.RESOURCE_EXHAUSTED.name,
        )
    if code in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
        # A server that makes room or stops ends a stream so; the connection may be well.
        return StreamEndedError(
            f"the edge at {target} ended the call, or the connection was lost: {message}",
            status=grpc.StatusCode.UNAVAILABLE.name,
        )
    is_lost = code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL) and message.startswith(_LOST)
    if is_lost or code is grpc.StatusCode.UNAVAILABLE:
        why = next((why for sign, why in _TROUBLE if sign in details), message)
        kind = WrongEdgeError if any(sign in details for sign, _ in _WRONG) else EdgeUnavailableError
        return kind(
            f"no edge server answers at {target}, or the connection was lost: {why}",
            status=grpc.StatusCode.UNAVAILABLE.name,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(
            f"the edge at {target} did not answer within the deadline (deadline_s, --deadline-s)", status=code.name
        )
    if code is grpc.StatusCode.UNIMPLEMENTED and message.startswith(_NO_METHOD):
        return RemoteError(
            f"the server at {target} does not know this call: infer and advise ask a splitinfer serve, device asks a "
            "splitinfer edge",
            status=code.name,
        )
    refused = remote_error(code, message)
    hint = dict(trailing).get(RETRY_AFTER)
    if isinstance(hint, str) and hint.isdecimal() and len(hint) < _MAX_HINT_DIGITS:
        refused.retry_after_s = int(hint) / 1e3
    return refused
