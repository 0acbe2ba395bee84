"""Settings of the two ends."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from splitinfer.errors import InputError
from splitinfer.runtime.batch_sizes import check_batch
from splitinfer.runtime.security import ClientSecurity, ServerSecurity, is_loopback
from splitinfer.threads import checked_threads
from splitinfer.wire.codecs import INSTALLED, RAW, Wire, codecs_named
from splitinfer.wire.limits import WireLimits

_MAX_PORT = 65535

MAX_WAIT_S = 1e8
"""Longest wait that can be set, three years; gRPC takes no longer ones."""

LEAST_KEEPALIVE_S = 1.0
"""Shortest silence after which an end may ask for the other; servers close connections that ask far more often."""


@dataclass(frozen=True)
class ServerSettings:
    """How an edge server listens and works.

    Attributes:
        host: address to listen on. Beyond loopback only with TLS or ``insecure``.
        port: 0 picks a free one; ``EdgeServer.address`` tells which.
        insecure: agree to listen beyond loopback in plain text.
        security: TLS, and who may connect.
        limits: what one message may hold.
        codecs: names of the codecs that requests may come and replies may be wanted in; all that are known if empty.
            Raw always is.
        torch_threads: threads inside one operation of a tail.
        parallel_tails: tails that compute at the same time; further requests wait. By default as many as fill the
            processors.
        max_picture_pixels: of a picture that is sent itself and preprocessed here. As many are decoded at the same time
            as tails compute.
        max_picture_scans: of a progressive JPEG among them.
        batch: most requests for one tail that are computed together, a power of two up to 32. A batch is what queued
            while the processors were busy; no request waits for another. Its answers equal single ones to
            ``BATCH_TOLERANCE`` instead of to the bit, so 1, no batches, is the default.
        stuck_s: time after which a tail that has not ended makes the health service say NOT_SERVING, seconds.
        max_calls: calls open at the same time, each with its own thread; an open stream is one call. A further call
            takes the place of one that waits for its client's next request, and is refused where all are at work.
            Descriptions, health and reflection have as many places of their own, and at least 32.
        kept_answer_bytes: answers kept for clients that ask again with the same id.
        kept_answer_s: for how long at most, seconds: longer than clients try.
        max_wait_s: longest time that a request may have to wait for a processor, seconds; it is refused while those
            before it will take longer.
        retry_after_s: when a client that is refused for want of a place or a processor may ask again at the earliest,
            seconds; it is told half the time that the waiting requests will take, if that is longer.
        longest_retry_after_s: longest time that the waiting requests are said to take, seconds.
        max_calls_per_name: of them, those of one peer that is known by a certificate or token; three quarters by
            default, so that no device keeps all others out.
        idle_s: longest time that a call may wait for its client's next message, seconds; then it is closed. Clients of
            ours open another with their next request.
        max_guests: in live runs, devices that have connected but not said who they are, at the same time.
        hello_s: in live runs, time that a device gets to say who it is, seconds.
        max_unread_bytes: in live runs, answers that wait at the edge for a device to read them, before it is lost.
        drain_s: time that calls get to finish once the server is told to stop, seconds.
        keepalive_s: silence after which the server asks whether a client is still there, seconds.
        max_connection_age_s: age at which a connection is closed once its calls are done, or after ``drain_s``, so
            that a balancer can move its client; for ever by default. Clients of ours connect again unnoticed.
        allocator_tuning: keep freed message buffers in the process (:mod:`splitinfer.runtime.malloc`).
    """

    host: str = "127.0.0.1"
    port: int = 0
    insecure: bool = False
    security: ServerSecurity = field(default_factory=ServerSecurity)
    limits: WireLimits = field(default_factory=WireLimits)
    codecs: tuple[str, ...] = ()
    torch_threads: int = 1
    parallel_tails: int | None = None
    batch: int = 1
    max_picture_pixels: int = 50_000_000
    max_picture_scans: int = 100
    stuck_s: float = 60.0
    max_calls: int = 256
    max_wait_s: float = 5.0
    kept_answer_bytes: int = 64 << 20
    kept_answer_s: float = 60.0
    retry_after_s: float = 0.1
    longest_retry_after_s: float = 5.0
    max_calls_per_name: int | None = None
    idle_s: float = 300.0
    max_guests: int = 16
    hello_s: float = 10.0
    max_unread_bytes: int = 256 << 20
    drain_s: float = 5.0
    keepalive_s: float = 30.0
    max_connection_age_s: float | None = None
    allocator_tuning: bool = True

    def __post_init__(self) -> None:
        checked_threads(self.torch_threads)
        _check_at_least(1, max_calls=self.max_calls, max_guests=self.max_guests)
        if self.parallel_tails is not None:
            _check_at_least(1, parallel_tails=self.parallel_tails)
        if self.max_calls_per_name is not None:
            _check_at_least(1, max_calls_per_name=self.max_calls_per_name)
        check_batch(self.batch)
        _check_positive(stuck_s=self.stuck_s, kept_answer_s=self.kept_answer_s)
        _check_positive(
            max_wait_s=self.max_wait_s,
            retry_after_s=self.retry_after_s,
            longest_retry_after_s=self.longest_retry_after_s,
        )
        _check_at_least(0, kept_answer_bytes=self.kept_answer_bytes)
        _check_at_least(1, max_unread_bytes=self.max_unread_bytes)
        _check_at_least(1, max_picture_pixels=self.max_picture_pixels, max_picture_scans=self.max_picture_scans)
        _check_positive(idle_s=self.idle_s, hello_s=self.hello_s, drain_s=self.drain_s, keepalive_s=self.keepalive_s)
        if self.max_connection_age_s is not None:
            _check_positive(max_connection_age_s=self.max_connection_age_s)
        _check_keepalive(self.keepalive_s)
        codecs_named(self.codecs, installed=True)
        if not 0 <= self.port <= _MAX_PORT:
            raise InputError(f"port must be from 0 (any free one) to {_MAX_PORT}, not {self.port}")
        if not self.insecure and not self.security.is_encrypted and not is_loopback(self.host):
            raise InputError(
                f"host {self.host} can be reached from other machines and the connection is not encrypted; give "
                "--tls-cert and --tls-key (splitinfer certs makes them), or say --insecure (insecure=True)"
            )

    @property
    def wire(self) -> Wire:
        """What messages may hold and which codecs are accepted."""
        return Wire(self.limits, accepts=codecs_named((RAW.name, *self.codecs)) if self.codecs else INSTALLED)

    @property
    def most_calls_of_one(self) -> int:
        """Calls open at the same time of one peer that has a name."""
        return self.max_calls_per_name or max(1, self.max_calls * 3 // 4)

    @property
    def tails_at_once(self) -> int:
        """Tails that compute at the same time."""
        if self.parallel_tails is not None:
            return self.parallel_tails
        return max(1, (os.cpu_count() or 1) // self.torch_threads)


@dataclass(frozen=True)
class ClientSettings:
    """How a client talks to an edge server.

    Attributes:
        deadline_s: longest time from sending a request to its answer, with all tries, seconds.
        try_s: longest time of one try, seconds; by default one may take all of ``deadline_s``.
        retries: further tries where no edge answers, or it is busy.
        breaker_failures: tasks that fail in a row before tasks with ``on_failure="fallback"`` stay here.
        probe_s: mean time until one of them then asks the edge again, seconds; doubles up to ``longest_probe_s``.
        longest_probe_s: mean time between such tasks at most, seconds.
        security: TLS, and what this end shows of itself.
        limits: what one message may hold; the server's own limits are asked for and hold too.
        codec: that tensors are sent in; only ``raw`` keeps every bit.
        reply_codec: that answers are wanted in.
        window: requests under way at once in :meth:`EdgeClient.stream`.
        stream_up_to_bytes: single requests of at most this size go over a stream that stays open, which answers small
            messages sooner; larger ones are calls of their own. 0 never uses a stream.
        pieces_from_bytes: single requests of at least this size go over their stream in pieces, where the server takes
            them, so that both ends copy while bytes are on their way.
        piece_bytes: largest content of a piece, at most half of ``pieces_from_bytes``.
        streams: open at the same time for single requests from several threads; further ones are calls of their own.
        keepalive_s: silence during a call after which the client asks whether the server is still there, seconds.
        allocator_tuning: keep freed message buffers in the process. It changes the whole process, so it is off
            unless asked for.
    """

    deadline_s: float = 30.0
    try_s: float | None = None
    retries: int = 2
    breaker_failures: int = 3
    probe_s: float = 1.0
    longest_probe_s: float = 30.0
    security: ClientSecurity = field(default_factory=ClientSecurity)
    limits: WireLimits = field(default_factory=WireLimits)
    codec: str = RAW.name
    reply_codec: str = RAW.name
    window: int = 3
    stream_up_to_bytes: int = 64 << 20
    pieces_from_bytes: int = 5 << 19
    piece_bytes: int = 5 << 18
    streams: int = 4
    keepalive_s: float = 30.0
    allocator_tuning: bool = False

    def __post_init__(self) -> None:
        _check_positive(deadline_s=self.deadline_s, keepalive_s=self.keepalive_s)
        _check_positive(probe_s=self.probe_s, longest_probe_s=self.longest_probe_s)
        if self.try_s is not None:
            _check_positive(try_s=self.try_s)
        _check_keepalive(self.keepalive_s)
        _check_at_least(1, window=self.window, breaker_failures=self.breaker_failures)
        _check_at_least(0, retries=self.retries)
        _check_names(codec=self.codec, reply_codec=self.reply_codec)
        codecs_named((self.codec, self.reply_codec), installed=True)
        _check_at_least(0, stream_up_to_bytes=self.stream_up_to_bytes, streams=self.streams)
        _check_at_least(1, piece_bytes=self.piece_bytes)
        _check_at_least(2 * self.piece_bytes, pieces_from_bytes=self.pieces_from_bytes)


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _check_names(**values: str) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            raise InputError(f"{name} must be a name such as 'int8', not {value!r}")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not isinstance(value, (int, float)) or not 0 < value <= MAX_WAIT_S:
            raise InputError(f"{name} must be a positive number of seconds up to {MAX_WAIT_S:.0f}, not {value!r}")


def _check_keepalive(value: float) -> None:
    if value < LEAST_KEEPALIVE_S:
        raise InputError(f"keepalive_s must be at least {LEAST_KEEPALIVE_S:g} s, not {value!r}")
