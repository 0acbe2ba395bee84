"""``Tasks``: what a client does about one task: ask the edge, ask again, or run the tail here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from splitinfer.errors import DeadlineError, EdgeUnavailableError, RemoteError
from splitinfer.runtime.connection import Connection
from splitinfer.runtime.description import EdgeDescription, read_description
from splitinfer.runtime.events import Inferred, Observer, nobody
from splitinfer.runtime.exchange import Exchange, ModelId, Outgoing, finished_here
from splitinfer.runtime.perseverance import Attempts, Breaker, OnFailure, checked_on_failure
from splitinfer.runtime.result import InferenceResult, Timing
from splitinfer.runtime.settings import ClientSettings
from splitinfer.runtime.tracing import UNTRACED, RequestTrace, Tracing
from splitinfer.runtime.transport import DESCRIBE

if TYPE_CHECKING:
    from splitinfer.graph import SplitModel


class Tasks:
    """Has the tails of tasks run, at the edge or here. Safe to use from several threads.

    Args:
        settings: of the client.
        exchange: what is said to the edge.
        connection: how.
        on_failure: what follows where the edge does not answer.
        observer: told ``Inferred`` of each task.
        tracing: writes a span of each.

    Attributes:
        settings, exchange: as given.
        breaker: whether the edge is left alone for now.
    """

    def __init__(
        self,
        settings: ClientSettings,
        exchange: Exchange,
        connection: Connection,
        *,
        on_failure: OnFailure,
        observer: Observer,
        tracing: Tracing | None,
    ) -> None:
        self.settings = settings
        self.exchange = exchange
        self.breaker = Breaker.of(settings)
        self._connection = connection
        self._on_failure = on_failure
        self._tell = observer
        self._tracing = tracing

    def attempts(self, on_failure: OnFailure | None, since_s: float) -> Attempts:
        """Return what may be tried for one task that was first sent at ``since_s``, ``time.perf_counter()``."""
        chosen = checked_on_failure(on_failure) if on_failure else self._on_failure
        return Attempts(self.settings, chosen, self.breaker, since_s)

    def describe(self, timeout_s: float) -> EdgeDescription:
        """Ask the edge what it holds.

        Raises:
            RemoteError: it does not say.
        """
        data = self._connection.call(DESCRIBE, Exchange.describe_request(), timeout_s)
        description = read_description(data, self.settings.limits)
        self.exchange.introduce(description)
        return description

    def finish(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None = None,
        on_failure: OnFailure | None = None,
        attempts: Attempts | None = None,
        request: Outgoing | None = None,
    ) -> InferenceResult:
        """Have the tail of a task run, there or here.

        Args:
            model, cut, tensors, head_s, codec, on_failure: of the task.
            attempts, request: of one that was sent before, and is sent again.
        """
        trace = self.begin(model.name, cut, head_s) if request is None else request.trace
        try:
            result = self._tried(
                model, cut, tensors, head_s, codec, on_failure or self._on_failure, attempts, request, trace
            )
        except BaseException as error:
            trace.failed(error)
            raise
        if trace is UNTRACED and self._tell is nobody:
            return result
        return self.told(model.name, result, trace)

    def begin(self, model: str, cut: int, head_s: float) -> RequestTrace:
        """Open a task's span."""
        return UNTRACED if self._tracing is None else self._tracing.begin(model, cut, head_s)

    def _tried(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None,
        on_failure: OnFailure,
        attempts: Attempts | None,
        request: Outgoing | None,
        trace: RequestTrace,
    ) -> InferenceResult:
        exchange, connection, breaker = self.exchange, self._connection, self.breaker
        since_s = time.perf_counter()
        # A request like those before leaves at once; what may have to be known of it can wait until it is on its way.
        lane = None
        if request is None and breaker.is_calm:
            plan = exchange.known(model, cut, codec)
            if plan is not None:
                request = exchange.prepare(model, cut, tensors, head_s, codec, trace, plan, in_pieces=True)
                try:
                    lane = connection.begin(request.data)
                except RemoteError:
                    lane = None  # and the try below meets it again
        try:
            attempts = attempts or Attempts(self.settings, on_failure, breaker, since_s)
            while lane is not None or attempts.may_try():
                try:
                    if lane is None:
                        attempts.check_busy()
                        if not exchange.is_introduced:
                            self.describe(attempts.timeout_s())
                        if request is None:
                            request = exchange.prepare(model, cut, tensors, head_s, codec, trace, in_pieces=True)
                        lane = connection.begin(request.data)
                    assert request is not None
                    if lane is not None:
                        exchange.rehearse(request)
                    under_way, lane = lane, None
                    result = exchange.read(request, connection.finish(under_way, request.data, attempts.timeout_s()))
                    if result.error is not None:
                        raise result.error
                except RemoteError as error:
                    pause_s = None if connection.closing.is_set() else attempts.failed(error)
                    if connection.closing.is_set() or (pause_s is not None and connection.closing.wait(pause_s)):
                        raise
                    if pause_s is None:
                        break
                else:
                    if not breaker.is_calm:
                        breaker.succeeded()
                    if connection.retired:
                        connection.close_retired()
                    return replace(result, retries=attempts.retries) if attempts.retries else result
        finally:
            if lane is not None:  # interrupted before anybody waited for the answer
                connection.drop(lane)
        return finished_here(model, cut, tensors, head_s, since_s, attempts)

    def told(self, model: str, result: InferenceResult, trace: RequestTrace) -> InferenceResult:
        """Close a task's span, tell the observer, and return the result."""
        trace.done(result)
        if result.error is None and self._tell is not nobody:
            self._tell(Inferred(model, result.cut, result.ran_at, result.retries))
        return result

    def answer(
        self,
        model: SplitModel | ModelId,
        cut: int,
        tensors: Sequence[Any],
        head_s: float,
        codec: str | None,
        on_failure: OnFailure | None = None,
        attempts: Attempts | None = None,
        request: Outgoing | None = None,
    ) -> InferenceResult:
        """As :meth:`finish`, but a refusal of this request alone is the ``error`` of its result."""
        try:
            return self.finish(model, cut, tensors, head_s, codec, on_failure, attempts, request)
        except (EdgeUnavailableError, DeadlineError):
            raise
        except RemoteError as refusal:
            if not self.exchange.is_introduced:
                raise
            return InferenceResult(cut, Timing(head_s), error=refusal)
