"""Answers that take time to come back: one after the other, in what prices latency, and in nothing at the default."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.errors import ScenarioError
from splitinfer.runtime.loop import LoopSettings, run_locally
from splitinfer.scheduling import FixedCut, PriceCut
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.identity import describe, digest
from tests.simulation.small import small_scenario

MASKS = Scenario(services=("lraspp_mobilenet_v3_large", "resnet18"), num_devices=2, arrival_rate_hz=1.0)
LAST = MASKS.num_cuts[0].tolist()


def _late_one_by_one(plain, rates_bps):
    """The way back written as a loop over tasks in the order in which the edge finishes them."""
    late, through = np.zeros(plain.finished), np.zeros(len(rates_bps))
    bits = [profile.output_bits for profile in MASKS.profiles[0]]
    for i, (m, n, cut, finish) in enumerate(
        zip(plain.tasks.device, plain.tasks.service, plain.tasks.cut, plain.tasks.finish_slot, strict=True)
    ):
        if cut < LAST[n]:
            ready = (finish + 1) * plain.slot_s
            through[m] = max(ready, through[m]) + bits[n] / rates_bps[m]
            late[i] = through[m] - ready
    return late


@pytest.mark.parametrize("cuts", [(0, LAST[1]), (3, 4)], ids=["one stays", "both"])
def test_each_answer_waits_for_those_before_it(cuts):
    policy = FixedCut(cuts)
    rates = (200e6, 250e6)
    plain = simulate(MASKS, policy, 4000)
    counted = simulate(MASKS.replace(downlink_bps=rates), policy, 4000)
    late = _late_one_by_one(plain, rates)
    assert late.max() > 0.9, "a mask is 182 Mbit"
    assert (late[plain.tasks.service == 1].max() > 0.1) == (cuts[1] < LAST[1]), "an answer of 32 kbit waits behind one"
    np.testing.assert_allclose(counted.latency_s, plain.latency_s + late, atol=1e-9)
    assert counted.energy_j == plain.energy_j
    assert counted.stability.stable == plain.stability.stable


def test_a_downlink_that_cannot_carry_the_answers_is_a_station_that_grows():
    report = simulate(MASKS.replace(downlink_bps=(100e6, 2e9)), FixedCut([0, 0]), 4000).stability
    assert "device 0 downlink" in report.growing
    assert "device 1 downlink" not in report.growing


def test_the_price_keeps_on_the_device_what_would_take_long_to_come_back():
    world = MASKS.replace(allocation="price", latency_price_w=1.0, device="pixel6", bandwidth_hz=200e6)
    free, dear = (simulate(own, PriceCut(), 1000) for own in (world, world.replace(downlink_bps=2e6)))
    masks = [run.tasks.cut[run.tasks.service == 0] for run in (free, dear)]
    assert (masks[0] < LAST[0]).mean() > 0.5
    assert (masks[1] == LAST[0]).all()


def test_at_its_default_it_is_in_no_digest_and_each_way_to_write_it_is_one_world():
    assert "downlink_bps" not in describe(MASKS)
    one, each = MASKS.replace(downlink_bps=2e6), MASKS.replace(downlink_bps=(2e6, 2e6))
    assert digest(one) == digest(each) != digest(MASKS)
    assert digest(one.replace(downlink_bps=3e6)) != digest(one)


def test_who_does_not_know_an_answers_size_or_cannot_delay_it_refuses():
    with pytest.raises(ScenarioError, match="downlink_bps: the profile of big does not say how large an answer is"):
        small_scenario(downlink_bps=1e6)
    with pytest.raises(ScenarioError, match="downlink_bps: needs one value or 2"):
        MASKS.replace(downlink_bps=(1e6, 1e6, 1e6))
    with pytest.raises(ScenarioError, match="downlink_bps: the answers of a live run come back over its real"):
        run_locally(MASKS.replace(downlink_bps=1e6), "fixed:0,0", LoopSettings(slots=10))
