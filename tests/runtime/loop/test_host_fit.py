"""Trials of a host before a live run: the time scale that fits, and what is said where none does."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from splitinfer.cli.main import main
from splitinfer.errors import InputError
from splitinfer.profiling import profile
from splitinfer.runtime.loop import LoopSettings, host_fit
from splitinfer.runtime.loop.host_fit import LARGEST_SCALE, Trial, fit_time_scale, try_host, warn_if_slow
from splitinfer.runtime.loop.local_run import LocalProcesses
from splitinfer.simulation import Scenario
from tests.runtime.loop.conftest import CARD


@dataclass
class Host:
    """Processes of a host that needs time to go ``needs`` times slower; remembers what it was asked for."""

    needs: float
    scenario: Scenario = field(default_factory=lambda: Scenario(num_devices=1))
    asked: list[LoopSettings] = field(default_factory=list)

    def run(self, policy: str, settings: LoopSettings) -> Any:
        self.asked.append(settings)
        slow = settings.time_scale < self.needs
        one = SimpleNamespace(slot_overruns=settings.slots // 2 if slow else 0, jobs=10, late_jobs=1 if slow else 0)
        return SimpleNamespace(result=lambda scenario: SimpleNamespace(lateness=(one, one)))


def processes(needs: float) -> tuple[Host, LocalProcesses]:
    host = Host(needs)
    return host, cast(LocalProcesses, host)


def test_the_least_scale_that_fits_is_taken_and_said() -> None:
    host, started = processes(needs=3.0)
    said: list[str] = []
    settings = LoopSettings(slots=5000, seed=4, patience_s=2.0)
    assert fit_time_scale(started, "fixed", settings, said.append) == LoopSettings(
        slots=5000, seed=4, patience_s=2.0, time_scale=4.0
    )
    assert said == ["time scale 4: 0% of slots overran and 0% of heads and tails were late in a trial of 1 s"]
    assert [one.time_scale for one in host.asked] == [1, 1, 2, 2, 4, 4]
    assert all(one.patience_s == 0 and one.seed == 4 and one.slots <= 100 for one in host.asked)


def test_a_host_that_is_never_quick_enough_is_refused() -> None:
    _, started = processes(needs=2 * LARGEST_SCALE)
    with pytest.raises(InputError, match=r"too slow even at 32 \(50% of slots overran and 10%"):
        fit_time_scale(started, "fixed", LoopSettings(slots=100), lambda what: None)


def test_a_slow_host_is_told_of_before_the_run_and_the_run_is_as_asked() -> None:
    said: list[str] = []
    settings = LoopSettings(slots=100, time_scale=0.5)
    assert warn_if_slow(processes(needs=0.5)[1], "fixed", settings, said.append) is settings
    assert not said
    assert warn_if_slow(processes(needs=1.0)[1], "fixed", settings, said.append) is settings
    assert "too slow for time scale 0.5" in said[0]


def test_either_measure_makes_a_host_too_slow() -> None:
    assert Trial(1.0, overruns=0.01, late=0.01).fits
    assert not Trial(1.0, overruns=0.05, late=0.0).fits
    assert not Trial(1.0, overruns=0.0, late=0.05).fits
    assert try_host(processes(needs=2.0)[1], "fixed", LoopSettings(slots=9)) == Trial(1.0, 0.5, 0.1)


def test_run_takes_auto(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(host_fit, "MOST_OVERRUNS", 1.0)  # any host will do here
    card = tmp_path / "plain.toml"
    card.write_text(CARD.format(factory="plain"))
    Scenario(name="tiny", services=(profile(card, latency=False),), num_devices=1, arrival_rate_hz=2.0).save(
        tmp_path / "tiny.toml"
    )
    command = ["run", "--scenario", str(tmp_path / "tiny.toml"), "--card", str(card), "--duration", "0.5"]
    assert main([*command, "--time-scale", "auto"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("splitinfer: time scale 1: ")
    assert "bit for bit" in said.out
    assert main([*command, "--time-scale", "soon"]) == 2
    assert "--time-scale: must be a number above 0, or auto" in capsys.readouterr().err
