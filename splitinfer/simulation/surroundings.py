"""What a world does by itself, whatever is decided in it: channel gains and arrivals, slot after slot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitinfer.radio import mean_gain
from splitinfer.scheduling.setting import FADING_QUANTILES, rayleigh_quantiles
from splitinfer.simulation.channel import CorrelatedChannel, RayleighChannel, SteadyChannel
from splitinfer.simulation.drift import Timeline
from splitinfer.simulation.scenario import Scenario

ARRIVALS, CHANNEL, POLICY = range(3)


def stream(scenario: Scenario, seed: int, purpose: int) -> np.random.Generator:
    """Return the random stream of one purpose in one run; streams of different purposes are independent."""
    return np.random.default_rng(np.random.SeedSequence((scenario.seed, seed), spawn_key=(purpose,)))


class Surroundings:
    """Gains and arrivals of one run. The same scenario and seed give the same ones, however they are drawn.

    Args:
        scenario: the world.
        seed: of the run; the scenario's own seed is mixed in.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._arrivals = scenario.arrivals.start(scenario.active, scenario.slot_s, stream(scenario, seed, ARRIVALS))
        self._channel = scenario.channel.start(scenario.num_devices, scenario.slot_s, stream(scenario, seed, CHANNEL))
        self._rates_hz = scenario.arrival_rates_hz()
        self._mean_gain = _mean_gain(scenario, np.asarray(scenario.distances_m))
        self._rate_timeline: Timeline | None = None
        self._gain_timeline: Timeline | None = None
        if scenario.drift is not None:
            distances = scenario.drift_distances_m()
            self._rate_timeline = Timeline(scenario.drift, scenario.drift_rates_hz(), scenario.slot_s)
            self._gain_timeline = Timeline(scenario.drift, distances, scenario.slot_s)
        self._scenario = scenario
        self._next = 0

    def draw(self, slots: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the gains, shape (slots, M), and the arriving requests, shape (slots, M, N), of the next slots."""
        rates, gain = self._rates_hz, self._mean_gain
        if self._rate_timeline is not None and self._gain_timeline is not None:
            rates = self._rate_timeline.between(self._next, slots)
            gain = _mean_gain(self._scenario, self._gain_timeline.between(self._next, slots))
        self._next += slots
        return self._channel.gains(gain, slots), self._arrivals.counts(rates, slots)


def _mean_gain(scenario: Scenario, distances_m: NDArray[np.float64]) -> NDArray[np.float64]:
    return mean_gain(
        distances_m,
        carrier_hz=scenario.carrier_frequency_hz,
        antenna_gain=scenario.antenna_gain,
        path_loss_exponent=scenario.path_loss_exponent,
    )


_LAW_SLOTS = 20_000
"""Length of the sample that stands for a channel whose law is not known in closed form."""

_LAW_SEED = 2**31 - 2
"""Of that sample; no run uses it."""


def channel_law(scenario: Scenario) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what is known of the gains beforehand: their mean, (M,), 0 where it moves, and the fading, (M, Q).

    The fading is a list of equally likely values of a gain over its mean.
    """
    mean = _mean_gain(scenario, np.asarray(scenario.distances_m))
    if isinstance(scenario.channel, RayleighChannel | CorrelatedChannel):
        fading = np.broadcast_to(rayleigh_quantiles(), (len(mean), FADING_QUANTILES))
    elif isinstance(scenario.channel, SteadyChannel):
        fading = np.ones((len(mean), FADING_QUANTILES))
    else:
        rng = np.random.default_rng(_LAW_SEED)
        drawn = scenario.channel.start(scenario.num_devices, scenario.slot_s, rng).gains(mean, _LAW_SLOTS)
        mean = drawn.mean(axis=0)
        levels = (np.arange(FADING_QUANTILES) + 0.5) / FADING_QUANTILES
        fading = (np.quantile(drawn, levels, axis=0) / np.where(mean > 0, mean, 1.0)).T
    if scenario.drift is not None:
        mean = np.zeros(len(mean))
    return mean, np.asarray(fading)
