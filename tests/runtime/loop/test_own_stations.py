"""Clocks and links of one's own: hardware takes the place of the emulated processor and radio."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

from splitinfer.policies import named_policy
from splitinfer.runtime.emulation import EmulatedClock, EmulatedLink
from splitinfer.runtime.loop import LoopSettings, run_device, run_edge
from splitinfer.runtime.loop.services import ServiceLoader


class MeteredClock(EmulatedClock):
    """A processor that keeps what it was set to."""

    def __init__(self, queues, **arguments):
        super().__init__(queues, **arguments)
        self.frequencies_hz = []

    def open_slot(self, frequency_hz):
        self.frequencies_hz.append(np.array(frequency_hz))
        super().open_slot(frequency_hz)


class MeteredLink(EmulatedLink):
    def __init__(self, queues, **arguments):
        super().__init__(queues, **arguments)
        self.powers_w = []

    def open_slot(self, rate_bps, power_w):
        self.powers_w.append(power_w)
        return super().open_slot(rate_bps, power_w)


def test_a_run_takes_clocks_and_links_of_ones_own(tiny, tiny_cards):
    world = tiny.replace(num_devices=1, fixed_cuts=(1, 1))
    loader = ServiceLoader(tiny_cards)
    listens: queue.SimpleQueue[str] = queue.SimpleQueue()
    made: dict[str, list] = {"edge": [], "device": [], "link": []}
    failed: list[BaseException] = []

    def keep(kind, make):
        def made_and_kept(*arguments, **named):
            made[kind].append(make(*arguments, **named))
            return made[kind][-1]

        return made_and_kept

    def be_edge():
        try:
            run_edge(
                world,
                named_policy("fixed", world),
                loader.models(world),
                LoopSettings(slots=60, time_scale=0.1, patience_s=60.0),
                make_clock=keep("edge", MeteredClock),
                on_listen=listens.put,
            )
        except BaseException as error:
            failed.append(error)
            raise

    edge = threading.Thread(target=be_edge)
    edge.start()
    powers_w = []
    farewell = run_device(
        listens.get(timeout=60),
        world,
        0,
        loader.services(world, 0),
        make_clock=keep("device", MeteredClock),
        make_link=keep("link", MeteredLink),
        on_period=lambda slot, means, cuts: powers_w.append(means.power_w),
    )
    edge.join(60)
    assert not failed
    assert farewell.checked > 0
    assert farewell.wrong == 0
    (clock,), (link,), (tails,) = made["device"], made["link"], made["edge"]
    assert len(clock.frequencies_hz) == len(link.powers_w) == len(tails.frequencies_hz) == 60
    assert max(f.sum() for f in clock.frequencies_hz) > 0
    assert np.mean(link.powers_w) == pytest.approx(np.mean(powers_w), rel=1e-12)
    assert clock.shortfall.jobs == farewell.jobs
