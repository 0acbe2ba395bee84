"""What looking ahead on channels with a memory could bring: the price rule beside one that knows every gain to come.

``Clairvoyant`` is an allocation rule from outside, through the public seam: on the link it tries levels around the
price of a bit, plays each forward on the gains that will really come, and sends to the one that gets the waiting tasks
done at least energy + w x latency. No predictor of gains can know more; what this one does not know are the tasks to
come. The processor and the edge are those of ``price``. The large model runs at the edge, so that all of it is sent.

Ratios are the clairvoyant's over the price rule's, on the same arrivals and gains; below 1 looking ahead gains.

Run: ``python -m benchmarks.look_ahead [--json] [--slots N] [--seeds N]``
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.radio import rate_bps
from splitinfer.scheduling import FixedCut, PriceOfTime, Waiting
from splitinfer.scheduling.pricing import price_for
from splitinfer.scheduling.setting import Setting
from splitinfer.simulation import Scenario, simulate

Floats = NDArray[np.float64]

LEVELS = np.geomspace(0.4, 4.0, 25)
HORIZON_SLOTS = 1500
WORLDS: dict[str, dict[str, Any]] = {
    "independent slots": {},
    "coherence 0.1 s": {"channel": {"kind": "correlated", "coherence_time_s": 0.1}},
    "coherence 1 s": {"channel": {"kind": "correlated", "coherence_time_s": 1.0}},
    "coherence 5 s": {"channel": {"kind": "correlated", "coherence_time_s": 5.0}},
}


class Recorder(PriceOfTime):
    """The price rule, writing down the gains that it sees."""

    def __init__(self, gains: list[list[float]]) -> None:
        self._gains = gains

    def __deepcopy__(self, memo: Any) -> Recorder:
        return self  # what is written is read outside

    def observe(self, device: int, channel_gain: float) -> None:
        super().observe(device, channel_gain)
        self._gains[device].append(channel_gain)


class Clairvoyant(PriceOfTime):
    """Knows the gains (M, T) of the whole run."""

    name = "clairvoyant"

    def __init__(self, gains: Floats) -> None:
        self._gains = gains

    def __deepcopy__(self, memo: Any) -> Clairvoyant:
        return Clairvoyant(self._gains)

    def start(self, setting: Setting) -> None:
        super().start(setting)
        self._steep = setting.noise_w_per_hz * np.log(2) / np.maximum(self._gains, 1e-300)
        self._full = np.stack(
            [
                rate_bps(
                    setting.max_power_w[m],
                    gain=own,
                    bandwidth_hz=setting.device_bandwidth_hz,
                    noise_w_per_hz=setting.noise_w_per_hz,
                )
                for m, own in enumerate(self._gains)
            ]
        )

    def transmission(self, device: int, waiting: Waiting, channel_gain: float) -> tuple[Floats, float]:
        """The rate at the best level, in the order of the price rule."""
        setting, tasks, bits = self._setting, int(waiting.tasks.sum()), float(waiting.work.sum())
        wage_w, band = float(setting.latency_price_w[device]), setting.device_bandwidth_hz
        price = price_for(
            tasks,
            wage_w,
            self._channel,
            self._radio,
            device,
            band,
            setting.noise_w_per_hz,
            float(setting.max_power_w[device]),
        )
        ahead = np.s_[device, waiting.slot : waiting.slot + HORIZON_SLOTS]
        steep, full = self._steep[ahead], self._full[ahead]
        rate = np.clip(band * np.log2(np.maximum(price * LEVELS[:, None] / steep, 1.0)), 0.0, full)
        sent = np.cumsum(rate, axis=1) * setting.slot_s
        spent = np.cumsum(steep / np.log(2) * band * np.expm1(rate / band * np.log(2)), axis=1) * setting.slot_s
        cost = np.full(len(LEVELS), np.inf)
        for level in range(len(LEVELS)):
            if sent[level, -1] >= bits:
                # Equal tasks one after another: each pays for the seconds until it is through.
                done = np.searchsorted(sent[level], bits * np.arange(1, tasks + 1) / tasks * (1 - 1e-12))
                cost[level] = spent[level, done[-1]] + wage_w * setting.slot_s * float((done + 1).sum())
        best = int(np.argmin(cost)) if np.isfinite(cost).any() else len(LEVELS) - 1
        return self._in_order(waiting, float(rate[best, 0])), float(setting.max_power_w[device])

    def _in_order(self, waiting: Waiting, budget: float) -> Floats:
        out = np.zeros(len(waiting.work))
        rank = np.where(waiting.tasks > 0, waiting.head_work, np.inf)
        for part in (np.minimum(waiting.head_work, waiting.work), waiting.work):
            for n in np.argsort(rank, kind="stable"):
                out[n] += min(max(part[n] / self._setting.slot_s - out[n], 0.0), budget - out.sum())
        return np.maximum(out, 0.0)


def measure(changes: dict[str, Any], price_w: float, slots: int, seeds: int) -> dict[str, float]:
    """Cost per task of both rules, and their energies and latencies."""
    world = Scenario.preset("table2").replace(allocation="price", latency_price_w=price_w, **changes)
    policy = FixedCut(world.cut_array([0, 53]))
    totals = {"price": np.zeros(3), "clairvoyant": np.zeros(3)}
    for seed in range(seeds):
        gains: list[list[float]] = [[] for _ in range(world.num_devices)]
        plain = simulate(world, policy, slots, seed=seed, allocation=Recorder(gains))
        knowing = simulate(world, policy, slots, seed=seed, allocation=Clairvoyant(np.array(gains)))
        for name, run in (("price", plain), ("clairvoyant", knowing)):
            joules = run.energy_j * world.num_devices * slots
            totals[name] += joules, float(run.latency_s.sum()), len(run.latency_s)
    result = {}
    for name, (joules, waited_s, tasks) in totals.items():
        result |= {f"{name}_j": joules / tasks, f"{name}_s": waited_s / tasks}
        result[f"{name}_cost_j"] = (joules + price_w * waited_s) / tasks
    return result | {"ratio": result["clairvoyant_cost_j"] / result["price_cost_j"]}


def main(argv: list[str] | None = None) -> int:
    """Print one line per world and price."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.look_ahead", description=__doc__)
    parser.add_argument("--slots", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--prices", default="0.003,0.03", help="w, separated by commas")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    results = {}
    for name, changes in WORLDS.items():
        for price_w in map(float, options.prices.split(",")):
            one = results[f"{name}, w {price_w:g}"] = measure(changes, price_w, options.slots, options.seeds)
            if not options.json:
                print(
                    f"{name:<18} w {price_w:<6g} cost {one['ratio']:.3f} of the price rule's; mJ "
                    f"{one['clairvoyant_j'] * 1e3:.3f} against {one['price_j'] * 1e3:.3f}, ms "
                    f"{one['clairvoyant_s'] * 1e3:.0f} against {one['price_s'] * 1e3:.0f}",
                    flush=True,
                )
    if options.json:
        ratios = {name: one["ratio"] for name, one in results.items()}
        print(json.dumps({"name": "look_ahead", "worlds": results, "ratios": ratios}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
