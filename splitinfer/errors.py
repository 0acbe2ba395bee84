"""Every error that splitinfer raises on purpose.

::

    SplitInferError               exit code 2 on the command line, one line, no traceback
    ├── InputError                a value from the caller is wrong: unknown model, cut out of range, bad file
    │   └── ScenarioError         a field of a scenario is wrong; the message names the field
    ├── CaptureError              torch.export cannot capture the model; names the op or line and what to do
    ├── MissingExtraError         an optional dependency is absent; names the extra to install
    ├── CheckFailedError          a verification asked for by the user did not hold (exit code 1)
    └── RemoteError               the other end of the wire refused or failed; carries the gRPC status name
        ├── EdgeUnavailableError  no edge server answers, or it went away
        ├── DeadlineError         the edge did not answer within the deadline
        └── ModelMismatchError    the two ends hold different models or weights

Library code raises these; only the command line prints and exits.
"""

from __future__ import annotations


class SplitInferError(Exception):
    """Base of every error that splitinfer raises on purpose."""

    exit_code = 2


class InputError(SplitInferError, ValueError):
    """A value given by the caller is wrong."""


class ScenarioError(InputError):
    """A field of a scenario is wrong; the message starts with the field's name."""


class CaptureError(SplitInferError):
    """The model cannot be captured; the message names the op or source line and what to do."""


class MissingExtraError(SplitInferError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'splitinfer[{extra}]'")
        self.package = package
        self.extra = extra


class CheckFailedError(SplitInferError):
    """A check that the user asked for does not hold, for example a split answer that differs from the whole model's."""

    exit_code = 1


class RemoteError(SplitInferError):
    """The edge refused a request or failed on it.

    Attributes:
        status: name of the gRPC status code, for example ``"INVALID_ARGUMENT"``.
        retry_after_s: when an edge that is busy may be asked again, seconds; None where it did not say.
    """

    def __init__(self, message: str, *, status: str = "UNKNOWN", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class EdgeUnavailableError(RemoteError):
    """No edge server answers at the address, or the connection was lost."""


class DeadlineError(RemoteError):
    """The edge did not answer within the deadline."""


class ModelMismatchError(RemoteError):
    """Device and edge hold different models or weights under the same name."""
