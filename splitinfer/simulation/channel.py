"""Channel gains: settings of a scenario, and the random processes that they start.

Path loss comes from :mod:`splitinfer.radio`; here is what moves around it. As with arrivals, the gains of a seed are
the same whatever the policy does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from splitinfer.errors import InputError, ScenarioError
from splitinfer.simulation.arrivals import start_own
from splitinfer.simulation.fields import Positive, Settings
from splitinfer.simulation.traces import (
    TIME_COLUMNS,
    numbers,
    packet_means,
    read_mahimahi,
    read_rate_csv,
    read_text,
    slot_means,
)
from splitinfer.user_code import user_code


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
        path: a CSV file: one row a slot, one column a device, each the channel gain h (a number above 0 and up to 1; no
            unit); a header is skipped. For rates see ``rate``, ``mahimahi`` and ``drive-test``.
    """

    kind: Literal["trace"] = "trace"
    path: str

    def start(self, devices: int, slot_s: float, rng: np.random.Generator) -> ChannelProcess:
        return _Trace(read_gain_trace(self.path, devices))


class RateChannel(Settings):
    """A recorded rate: the channel carries just that at full power. Path loss and distances are not used.

    The gain of a slot is the one at which p_max carries the slot's mean rate over the device's bandwidth, so set
    ``bandwidth_hz`` to what the link has. The trace repeats from its start when it ends.

    Attributes:
        path: a CSV file with a header; or one file per device. A rate holds until the next row.
        time_column: its times: seconds, seconds or milliseconds since 1970, or ISO 8601; they count from the first row.
        rate_column: its rates.
        unit: of the rates: ``bit/s``, ``kbit/s``, ``Mbit/s``, ``Gbit/s``, ``B/s`` or ``KiB/s``.
    """

    kind: Literal["rate"] = "rate"
    path: str | tuple[str, ...]
    time_column: str = "time_s"
    rate_column: str = "rate_mbps"
    unit: Literal["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "KiB/s"] = "Mbit/s"

    def start(self, devices: int, slot_s: float, rng: np.random.Generator) -> RateProcess:
        def read(path: str) -> NDArray[np.float64]:
            times, rates = read_rate_csv(
                path,
                field="channel.path",
                time_columns=(self.time_column,) if self.time_column != "time_s" else TIME_COLUMNS,
                rate_columns=(self.rate_column,),
                unit=self.unit,
            )
            return slot_means(times, rates, slot_s)

        return RateProcess(_per_device(self.path, devices, read))


class DriveTestChannel(RateChannel):
    """A 5G or LTE drive test: like ``rate``, with the columns and the unit of the public logs (kbit/s)."""

    kind: Literal["drive-test"] = "drive-test"  # type: ignore[assignment]
    time_column: str = "Timestamp"
    rate_column: str = "UL_bitrate"
    unit: Literal["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "KiB/s"] = "kbit/s"


class MahimahiChannel(Settings):
    """A mahimahi packet trace: the channel carries its rate at full power, see ``rate``.

    Attributes:
        path: a file with one line a packet of 1504 bytes, its time in whole milliseconds; or one file per device. It
            repeats after its last packet, as mahimahi does.
    """

    kind: Literal["mahimahi"] = "mahimahi"
    path: str | tuple[str, ...]

    def start(self, devices: int, slot_s: float, rng: np.random.Generator) -> RateProcess:
        return RateProcess(
            _per_device(
                self.path, devices, lambda path: packet_means(read_mahimahi(path, field="channel.path"), slot_s)
            )
        )


class OwnChannel(Settings):
    """A channel of the user's own: ``channel = "package.module:Class(k=3)"``.

    The class has ``start(devices, slot_s, rng)``, which returns a ``ChannelProcess``. Naming it runs the module's code.

    Attributes:
        name: ``package.module:Class``, with literal arguments where it needs some.
    """

    kind: Literal["own"] = "own"
    name: str

    def start(self, devices: int, slot_s: float, rng: np.random.Generator) -> ChannelProcess:
        return _Checked(start_own("channel", self.name, (devices, slot_s, rng)), self.name)


ChannelModel = Annotated[
    SteadyChannel
    | RayleighChannel
    | CorrelatedChannel
    | TraceChannel
    | RateChannel
    | DriveTestChannel
    | MahimahiChannel
    | OwnChannel,
    Field(discriminator="kind"),
]

MAX_BITS_PER_S_PER_HZ = 500.0
"""Most that a rate trace may ask of the bandwidth: the gain that carries it grows as 2 to this power."""


class RateProcess:
    """Rates per slot and device, repeated from the start; ``Surroundings`` turns them into gains."""

    def __init__(self, tables: list[NDArray[np.float64]]) -> None:
        self._tables = tables
        self._next = 0

    @property
    def length(self) -> int:
        """Slots until the longest trace starts again."""
        return max(map(len, self._tables))

    @property
    def highest_bps(self) -> float:
        """Highest rate of any device."""
        return max(float(table.max()) for table in self._tables)

    def rates_bps(self, slots: int) -> NDArray[np.float64]:
        """Return the rates of the next slots, shape (slots, M)."""
        at = np.arange(self._next, self._next + slots)
        self._next += slots
        return np.stack([table[at % len(table)] for table in self._tables], axis=1)


def _per_device(path: str | tuple[str, ...], devices: int, read: Any) -> list[NDArray[np.float64]]:
    if isinstance(path, str):
        return [read(path)] * devices
    if len(path) != devices:
        raise ScenarioError(f"channel.path: has {len(path)} files; num_devices is {devices}")
    return [read(one) for one in path]


def read_gain_trace(path: str, devices: int) -> NDArray[np.float64]:
    """Read recorded gains, shape (rows, M).

    Raises:
        ScenarioError: the file is absent, has another number of columns, or a gain that is not above 0 and up to 1.
    """
    field = "channel.path"
    lines = [(n, line) for n, line in enumerate(read_text(path, field).splitlines(), 1) if line.strip()]
    if lines and _is_header(lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise ScenarioError(f"{field}: {path} has no rows")
    table = np.empty((len(lines), devices))
    for row, (line, text) in enumerate(lines):
        parts = text.split(",")
        if len(parts) != devices:
            raise ScenarioError(f"{field}: {path} line {line}: has {len(parts)} columns; num_devices is {devices}")
        table[row] = numbers(path, field, "the gain", [(line, part) for part in parts])
    wrong = (table <= 0) | (table > 1)
    if wrong.any():
        row, device = np.argwhere(wrong)[0]
        raise ScenarioError(
            f"{field}: {path} line {lines[row][0]}: a channel gain is a number above 0 and up to 1, not "
            f"{table[row, device]:g}; for rates use kind = rate, mahimahi or drive-test"
        )
    return table


def _is_header(line: str) -> bool:
    names = [part.strip().lower() for part in line.split(",")]
    return any(name[:1].isalpha() and name not in ("nan", "inf", "infinity") for name in names)


class _Checked:
    """A process of the user's own, whose answers are looked at."""

    def __init__(self, process: Any, name: str) -> None:
        self._process = process
        self._name = name

    def gains(self, mean_gain: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
        with user_code(f"channel: {self._name}"):
            gains = np.asarray(self._process.gains(mean_gain, slots), np.float64)
        shape = (slots, mean_gain.shape[-1])
        if gains.shape != shape or not np.isfinite(gains).all() or (gains < 0).any():
            raise InputError(f"channel: {self._name} must return finite gains of at least 0 of the shape {shape}")
        return gains


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
        try:
            from scipy.signal import lfilter
        except ImportError:  # a device without torch has none either
            raise ScenarioError(
                "channel: correlated needs scipy, which is not installed; run: pip install scipy"
            ) from None

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
        self.length = len(table)
        self._next = 0

    def gains(self, mean_gain: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
        at = np.arange(self._next, self._next + slots) % len(self._table)
        self._next += slots
        return self._table[at]
