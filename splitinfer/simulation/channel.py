"""Channel gains: settings of a scenario, and the random processes that they start.

Path loss comes from :mod:`splitinfer.radio`; here is what moves around it. As with arrivals, the gains of a seed are
the same whatever the policy does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from splitinfer.errors import ScenarioError
from splitinfer.simulation.fields import Positive, Settings


class ChannelProcess(Protocol):
    """Gains of one environment's devices, advanced in order."""

    def gains(self, mean_gain: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
        """Return the channel gains h of the next ``slots`` slots, shape (slots, M).

        Args:
            mean_gain: path loss, shape (M,), or (slots, M) where devices move.
            slots: number of slots.
        """


class SteadyChannel(Settings):
    """Path loss alone: h is the mean gain."""

    kind: Literal["steady"] = "steady"

    def start(self, devices: int, slot_s: float, rng: np.random.Generator) -> ChannelProcess:
        return _Steady()


class RayleighChannel(Settings):
    """Rayleigh fading, drawn anew for each device and slot: ``h = h_mean * Exp(1)`` (the paper's)."""

    kind: Literal["rayleigh"] = "rayleigh"

    def start(self, devices: int, slot_s: float, rng: np.random.Generator) -> ChannelProcess:
        return _Rayleigh(devices, rng)


class CorrelatedChannel(Settings):
    """Rayleigh fading that changes slowly: a complex Gauss-Markov process, ``h = h_mean * |g|^2``.

    Attributes:
        coherence_time_s: the lag at which the correlation of g has fallen to 1/e; that of h falls to 1/e^2.
    """

    kind: Literal["correlated"] = "correlated"
    coherence_time_s: Positive = 0.05

    def start(self, devices: int, slot_s: float, rng: np.random.Generator) -> ChannelProcess:
        return _GaussMarkov(devices, float(np.exp(-slot_s / self.coherence_time_s)), rng)


class TraceChannel(Settings):
    """Recorded gains, repeated from the start when the file ends; path loss and distances are not used.

    Attributes:
        path: a CSV file without a header: one row a slot, one column a device, each the channel gain h.
    """

    kind: Literal["trace"] = "trace"
    path: str

    def start(self, devices: int, slot_s: float, rng: np.random.Generator) -> ChannelProcess:
        return _Trace(read_gain_trace(self.path, devices))


ChannelModel = Annotated[
    SteadyChannel | RayleighChannel | CorrelatedChannel | TraceChannel,
    Field(discriminator="kind"),
]


def read_gain_trace(path: str, devices: int) -> NDArray[np.float64]:
    """Read recorded gains, shape (rows, M).

    Raises:
        ScenarioError: the file is absent, has another number of columns, or holds something not above zero.
    """
    try:
        table = np.genfromtxt(Path(path), delimiter=",", dtype=np.float64, ndmin=2)
    except OSError:
        raise ScenarioError(f"channel.path: cannot read {path}") from None
    except ValueError as error:
        raise ScenarioError(f"channel.path: {path} is not a table of numbers: {str(error).splitlines()[0]}") from None
    if table.shape[1] != devices:
        raise ScenarioError(f"channel.path: {path} has {table.shape[1]} columns; num_devices is {devices}")
    if not len(table) or not np.all(table > 0):
        raise ScenarioError(f"channel.path: every gain in {path} must be a number above 0")
    return table


class _Steady:
    def gains(self, mean_gain: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
        return np.broadcast_to(mean_gain, (slots, mean_gain.shape[-1])).copy()


class _Rayleigh:
    def __init__(self, devices: int, rng: np.random.Generator) -> None:
        self._devices = devices
        self._rng = rng

    def gains(self, mean_gain: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
        return mean_gain * self._rng.standard_exponential((slots, self._devices))


class _GaussMarkov:
    def __init__(self, devices: int, memory: float, rng: np.random.Generator) -> None:
        self._memory = memory
        self._rng = rng
        self._state = self._draw(1, devices)

    def _draw(self, slots: int, devices: int) -> NDArray[np.complex128]:
        # |g|^2 of this is Exp(1): variance 1/2 in each part.
        parts = self._rng.standard_normal((slots, devices, 2)) * np.sqrt(0.5)
        return np.asarray(parts[..., 0] + 1j * parts[..., 1], dtype=np.complex128)

    def gains(self, mean_gain: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
        from scipy.signal import lfilter

        if not slots:
            return np.zeros((0, self._state.shape[1]))
        a = self._memory
        noise = np.sqrt(1 - a * a) * self._draw(slots, self._state.shape[1])
        path, _ = lfilter([1.0], [1.0, -a], noise, axis=0, zi=a * self._state)
        self._state = path[-1:]
        gains: NDArray[np.float64] = mean_gain * (path.real**2 + path.imag**2)
        return gains


class _Trace:
    def __init__(self, table: NDArray[np.float64]) -> None:
        self._table = table
        self._next = 0

    def gains(self, mean_gain: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
        at = np.arange(self._next, self._next + slots) % len(self._table)
        self._next += slots
        return self._table[at]
