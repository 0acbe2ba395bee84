"""What a world does by itself, whatever is decided in it: channel gains and arrivals, slot after slot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splitinfer.radio import LN2, mean_gain
from splitinfer.scheduling.setting import FADING_QUANTILES, rayleigh_quantiles
from splitinfer.simulation.channel import ChannelProcess, CorrelatedChannel, RateProcess, RayleighChannel, SteadyChannel
from splitinfer.simulation.drift import Timeline
from splitinfer.simulation.scenario import Scenario

RECORDED = ("trace", "rate", "drive-test", "mahimahi")
"""Kinds of channels that path loss has no part in."""

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
        return channel_gains(self._scenario, self._channel, gain, slots), self._arrivals.counts(rates, slots)

    def notes(self, slots: int) -> list[str]:
        """Return what a reader of a run of so many slots should know of its traces."""
        scenario, notes = self._scenario, []
        ends_s = getattr(self._arrivals, "ends_s", None)
        length_s = slots * scenario.slot_s
        if ends_s is not None and ends_s < length_s:
            notes.append(
                f"the trace of arrivals ends at {ends_s:.1f} s and the run at {length_s:.1f} s: nothing arrives "
                "between (arrivals.repeat_s starts it again)"
            )
        if scenario.channel.kind in RECORDED and "distances_m" in scenario.model_fields_set:
            notes.append(f"distances_m is not used: the channel is recorded (kind {scenario.channel.kind})")
        length = getattr(self._channel, "length", None)
        if length is not None and length < slots:
            notes.append(f"the channel's trace has {length} slots and starts again after them")
        return notes


def _mean_gain(scenario: Scenario, distances_m: NDArray[np.float64]) -> NDArray[np.float64]:
    return mean_gain(
        distances_m,
        carrier_hz=scenario.carrier_frequency_hz,
        antenna_gain=scenario.antenna_gain,
        path_loss_exponent=scenario.path_loss_exponent,
    )


def channel_gains(
    scenario: Scenario, channel: ChannelProcess | RateProcess, mean: NDArray[np.float64], slots: int
) -> NDArray[np.float64]:
    """Return the next gains of a channel, shape (slots, M); of a recorded rate, those at which p_max carries it."""
    if not isinstance(channel, RateProcess):
        return channel.gains(mean, slots)
    bandwidth_hz = scenario.bandwidth_hz / scenario.num_devices
    paper = scenario.device == "paper" or scenario.device == ("paper",) * scenario.num_devices
    most_w = [scenario.max_power_w if paper else card.used_radio.max_power_w for card in scenario.cards]
    snr = np.expm1(channel.rates_bps(slots) / bandwidth_hz * LN2)
    return np.asarray(snr * (bandwidth_hz * scenario.noise_w_per_hz) / np.array(most_w))


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
        channel = scenario.channel.start(scenario.num_devices, scenario.slot_s, rng)
        drawn = channel_gains(scenario, channel, mean, _LAW_SLOTS)
        mean = drawn.mean(axis=0)
        levels = (np.arange(FADING_QUANTILES) + 0.5) / FADING_QUANTILES
        fading = (np.quantile(drawn, levels, axis=0) / np.where(mean > 0, mean, 1.0)).T
    if scenario.drift is not None:
        mean = np.zeros(len(mean))
    return mean, np.asarray(fading)
