"""Choose the energy weights from a latency target: "95 % of the requests within 0.2 s" instead of U = 1e18.

The constraint is that at most a share a = 5 % of a service's requests is late. Each service has a virtual queue that a
late request lengthens by 1 - a and one in time shortens by a; if it stays finite, the constraint holds. The service's
*pace*, the time in which a request that meets empty queues would get through, follows the virtual queue in the
logarithm ::

    log pace_n  <-  log pace_n - g_i (1[request i late] - a_i),        g_i = max(g, G / (i + i0))

which is the Robbins-Monro recursion for the quantile: it settles where P(late) = a, that is where the 95th percentile
is the target. The share that it aims at pays back what went wrong: with a debt of L late requests too many so far,
``a_i = a - L / 400``, within [a/2, 2a], so that the percentile of the whole run comes to the target and not only that
of its end. (Linearised, the two integrators make a loop with damping near 1 at usual tails.) No more speed than that is
bought, and with convex energy, less speed is less energy. Early steps are large (about the best gain for tails of usual
shape), later ones keep the size g, so that a drifting world is followed.

The pace becomes weights through a model of one request alone on empty queues (:class:`_Drain`). The weight of service n
against energy is v_n / U, so the device's U^l and U^t stay at a reference and v_n is what moves: services of one device
can have different targets. U^t / U^l is (R/F)^2: then a second of backlog costs the same on the processor and on the
link. The model need not be exact, only monotone; what it misses (queueing, fading), the recursion corrects.

Nothing is used that a real system would not know: its requests' arrival and finish times, its tables and its mean
channel. A request that is still under way when its target passes counts as late at once, so a stalled service cannot
hide.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from splitinfer.scheduling.observation import Setting

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

REFERENCE_WEIGHT = 1e18
"""U^l while weights adapt. Only v / U matters; this U is where v = 1 trades energy against about a second."""

_LOG_V = np.linspace(np.log(1e-8), np.log(1e12), 161)
"""Grid of log v on which the model is tabulated. Above, every device runs flat out; below, nothing moves."""

_PAY_BACK = 400
"""Requests over which a debt of late ones is paid back."""

_MOST_FACTOR = np.log(30.0)
"""The pace stays within a factor of 30 of the target."""


class LatencyTarget:
    """Adapts v so that each service's latency percentile meets its target.

    Args:
        setting: the static setting.
        targets_s: latency target per service, shape (M, N); 0 leaves a service at the setting's weights.
        late_share: a, the share of requests that may be late (0.05: the target is for the 95th percentile).
        last_gain: g, the lasting step in log latency.
        first_gain: G, numerator of the falling steps.
        gain_offset: i0.

    Attributes:
        local_energy_weight: (M,) U^l to use now.
        transmission_energy_weight: (M,) U^t to use now.
        queue_weight: (M, N) v to use now.
        latency_price_w: (M,) w to use now, under the price of time.
        late: (M, N) requests judged late so far.
        judged: (M, N) requests judged so far.
    """

    def __init__(
        self,
        setting: Setting,
        targets_s: Array,
        *,
        late_share: float = 0.05,
        last_gain: float = 0.05,
        first_gain: float = 6.0,
        gain_offset: float = 20.0,
    ) -> None:
        self._setting = setting
        self._targets_s = np.where(setting.active, targets_s, 0.0)
        self._late_share = late_share
        self._last_gain = last_gain
        self._first_gain = first_gain
        self._gain_offset = gain_offset
        shape = setting.active.shape
        # Half the target for the work itself leaves the other half to queueing: a fair start at moderate load.
        self._log_pace = np.log(np.where(self._targets_s > 0, self._targets_s, 1.0) / 2)
        self._first_pace = self._log_pace.copy()
        self.late = np.zeros(shape, dtype=np.int64)
        self.judged = np.zeros(shape, dtype=np.int64)
        self._waiting: list[list[deque[float]]] = [[deque() for _ in range(shape[1])] for _ in range(shape[0])]
        self._judged_waiting = np.zeros(shape, dtype=np.int64)
        self._max_rate_bps: Array | None = None
        self._aimed = list(zip(*np.nonzero(self._targets_s > 0), strict=True))
        self._new_drain(8 * setting.device_bandwidth_hz * np.ones(shape[0]))
        self._set_weights(setting.num_cuts)
        self._set_price()

    def arrived(self, time_s: Array, device: Ints, service: Ints) -> None:
        """Note requests in the order of arrival: when each came, and whose it is."""
        for when, m, n in zip(time_s.tolist(), device.tolist(), service.tolist(), strict=True):
            self._waiting[m][n].append(when)

    def finished(self, device: Ints, service: Ints, latency_s: Array) -> None:
        """Note finished requests in the order of finishing: whose, and how long each took."""
        for m, n, latency in zip(device.tolist(), service.tolist(), latency_s.tolist(), strict=True):
            self._waiting[m][n].popleft()
            if self._judged_waiting[m, n]:
                # It was counted late when its time ran out.
                self._judged_waiting[m, n] -= 1
            elif self._targets_s[m, n]:
                self._judge(m, n, latency > self._targets_s[m, n])

    def adapt(self, now_s: float, cuts: Ints, max_rate_bps: Array) -> None:
        """Set the weights for the time to come.

        Args:
            now_s: the time.
            cuts: cuts in force, shape (M, N).
            max_rate_bps: newest mean of the rate at full power, shape (M,).
        """
        for m, n in self._aimed:
            waiting, due = self._waiting[m][n], now_s - self._targets_s[m, n]
            while self._judged_waiting[m, n] < len(waiting) and waiting[self._judged_waiting[m, n]] < due:
                self._judged_waiting[m, n] += 1
                self._judge(m, n, True)
        if self._max_rate_bps is None:
            self._max_rate_bps = max_rate_bps.copy()
        self._max_rate_bps += 0.02 * (max_rate_bps - self._max_rate_bps)
        if np.any(np.abs(self._max_rate_bps / self._drain_rate_bps - 1) > 0.1):
            self._new_drain(self._max_rate_bps)
        self._set_weights(cuts)
        self._set_price()

    def _set_price(self) -> None:
        """w of a device: what its most pressing service asks for; at a price w, speed goes with its cube root."""
        price = np.array(self._setting.latency_price_w)
        asked = np.exp(-3.0 * (self._log_pace - self._first_pace))
        for m in {m for m, _ in self._aimed}:
            price[m] *= max(asked[m, n] for own, n in self._aimed if own == m)
        self.latency_price_w = price

    def _judge(self, m: int, n: int, late: bool) -> None:
        share = self._late_share
        gain = max(self._last_gain, self._first_gain / (self.judged[m, n] + self._gain_offset))
        debt = self.late[m, n] - share * self.judged[m, n]
        self._log_pace[m, n] -= gain * (late - min(max(share - debt / _PAY_BACK, share / 2), 2 * share))
        # Beyond this no weight helps; going on would only have to be unwound later.
        middle = np.log(self._targets_s[m, n])
        self._log_pace[m, n] = np.clip(self._log_pace[m, n], middle - _MOST_FACTOR, middle + _MOST_FACTOR)
        self.judged[m, n] += 1
        self.late[m, n] += late

    def _new_drain(self, rate_bps: Array) -> None:
        self._drain_rate_bps = rate_bps.copy()
        setting = self._setting
        ratio = (rate_bps / setting.max_local_frequency_hz) ** 2
        self.local_energy_weight = np.full(len(rate_bps), REFERENCE_WEIGHT)
        self.transmission_energy_weight = REFERENCE_WEIGHT * ratio
        self._drain = _Drain(setting, self.local_energy_weight, self.transmission_energy_weight, rate_bps)

    def _set_weights(self, cuts: Ints) -> None:
        # What has no target keeps the ratio of backlog to local energy that the setting asks for.
        plain = self.local_energy_weight / np.maximum(self._setting.local_energy_weight, 1e-9)
        self.queue_weight = np.repeat(plain[:, None], cuts.shape[1], axis=1)
        for m, n in self._aimed:
            self.queue_weight[m, n] = self._drain.queue_weight(m, n, int(cuts[m, n]), float(self._log_pace[m, n]))


class _Drain:
    """How long one request takes on empty queues, as a function of v, for each cut.

    Local: at ``f(q) = min(F, sqrt(v q / (3 U^l delta)))`` work x takes ``2 sqrt(3 U^l delta q / v)`` up to the knee and
    1/F per cycle above. Link: averaged over Rayleigh fading, ``E[b log2(v q h / (U^t N0 ln 2))]^+`` is
    ``b / ln 2 * E1(q0 / q)`` with ``q0 = U^t N0 ln 2 / (v h)``, at most R; the time is its inverse integrated over the
    backlog, down to 2 % of the request. Edge: work over F^e.
    """

    def __init__(self, setting: Setting, local_weight: Array, transmission_weight: Array, rate_bps: Array) -> None:
        self._setting = setting
        self._local_weight = local_weight
        self._transmission_weight = transmission_weight
        self._rate_bps = rate_bps
        self._tables: dict[tuple[int, int, int], Array] = {}

    def queue_weight(self, m: int, n: int, cut: int, log_pace: float) -> float:
        """Return the v at which a request with this cut takes the pace."""
        # The table falls with v; interp wants it rising.
        return float(np.exp(np.interp(log_pace, self._table(m, n, cut)[::-1], _LOG_V[::-1])))

    def _table(self, m: int, n: int, cut: int) -> Array:
        key = (m, n, cut)
        if key not in self._tables:
            self._tables[key] = np.log(self._time_s(m, n, cut))
        return self._tables[key]

    def _time_s(self, m: int, n: int, cut: int) -> Array:
        setting = self._setting
        v = np.exp(_LOG_V)
        cycles = setting.local_cycles[m, n, cut]
        bits = setting.transmission_bits[m, n, cut]
        top = setting.max_local_frequency_hz[m]
        slow = 3 * self._local_weight[m] * setting.energy_coefficient[m] / v
        knee = slow * top**2
        local = 2 * np.sqrt(slow * np.minimum(cycles, knee)) + np.maximum(cycles - knee, 0) / top
        edge = setting.edge_cycles[m, n, cut] / setting.max_edge_frequency_hz
        # Every station is passed in a slot of its own at least.
        time_s = np.maximum(local, setting.slot_s * (cycles > 0)) + max(edge, setting.slot_s * (edge > 0))
        return np.asarray(time_s + self._link_s(m, bits, v) if bits else time_s)

    def _link_s(self, m: int, bits: float, v: Array) -> Array:
        from scipy.special import exp1

        setting = self._setting
        bandwidth = setting.device_bandwidth_hz
        snr = np.expm1(self._rate_bps[m] / bandwidth * np.log(2))
        gain_over_noise = snr * bandwidth / setting.max_power_w[m]
        threshold = self._transmission_weight[m] * np.log(2) / (v * gain_over_noise)
        backlog = bits * np.geomspace(0.02, 1.0, 40)
        rate = np.minimum(bandwidth / np.log(2) * exp1(threshold[:, None] / backlog), self._rate_bps[m])
        # So low that nothing would ever be sent: the range of paces ends far below.
        rate = np.maximum(rate, 1e-6 * self._rate_bps[m])
        return np.asarray(np.maximum(np.trapezoid(1 / rate, backlog, axis=1), setting.slot_s))
