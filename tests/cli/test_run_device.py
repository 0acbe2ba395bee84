"""The verbs of the live run: run on one machine, edge with device, their reports and their mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from splitinfer.cli.main import main
from splitinfer.profiling import profile
from splitinfer.simulation import Scenario
from tests.runtime.loop.conftest import CARD, write_joint_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scenario file and the card of its one model."""
    folder = tmp_path_factory.mktemp("world")
    card = folder / "plain.toml"
    card.write_text(CARD.format(factory="plain"))
    scenario = Scenario(
        name="tiny",
        services=(profile(card),),
        num_devices=2,
        arrival_rate_hz=8.0,
        slots_per_period=5,
        cycles_per_mac=20.0,
        max_local_frequency_hz=1.5e8,
        bandwidth_hz=2e5,
    )
    scenario.save(folder / "tiny.toml")
    return folder / "tiny.toml", card


def test_run_prints_a_report_and_writes_trace_and_plot(world, tmp_path, capfd):
    scenario, card = world
    trace, plot = tmp_path / "trace.jsonl", tmp_path / "run.png"
    arguments = ["run", "--scenario", str(scenario), "--card", str(card), "--policy", "random", "--duration", "3"]
    arguments += ["--time-scale", "0.1", "--patience-s", "60", "--compare"]
    assert main([*arguments, "--trace", str(trace), "--plot", str(plot)]) == 0
    said = capfd.readouterr()
    assert without_compiling(said.err) == ""
    assert "equal the whole model's, bit for bit" in said.out
    table = [line.split() for line in said.out.splitlines() if line.startswith(("run ", "simulated "))]
    assert len(table) == 2
    assert table[0][1:] == table[1][1:]  # energy, latencies and count of the run and of the simulation
    assert plot.stat().st_size > 10_000
    kinds = [json.loads(line)["event"] for line in trace.read_text().splitlines()]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("period") == 60
    assert kinds.count("device") == 2


def test_a_run_in_a_codec_that_rounds_claims_no_bits_of_the_whole_model(world, capfd):
    scenario, card = world
    arguments = ["run", "--scenario", str(scenario), "--card", str(card), "--policy", "fixed:1", "--duration", "2"]
    assert main([*arguments, "--time-scale", "0.1", "--patience-s", "60", "--set", "codecs=int8"]) == 0
    assert "equal the tail's on what int8 leaves, bit for bit" in capfd.readouterr().out


def without_compiling(said: str) -> str:
    """Return what was said but for the compilation that the first process after an install has to do."""
    return "".join(line for line in said.splitlines(keepends=True) if "compiling the loops" not in line)


def test_an_edge_and_two_devices_make_the_same_run(world, tmp_path):
    scenario, card = world
    program = [sys.executable, "-m", "splitinfer.cli.main"]
    common = ["--scenario", str(scenario), "--card", str(card)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    serve = [*program, "edge", *common, "--port", "0", "--duration", "2", "--policy", "lyappo"]
    serve += ["--time-scale", "0.5", "--patience-s", "60", "--compare", "--plot", str(tmp_path / "run.png")]
    edge = subprocess.Popen(serve, **pipes)
    devices = []
    try:
        address = edge.stdout.readline().split()[-1]
        assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
        for index in range(2):
            attend = [*program, "device", "--server", address, "--index", str(index), *common]
            devices.append(subprocess.Popen(attend, **pipes))
        out, err = edge.communicate(timeout=200)
        capturing = "splitinfer: capturing the models of {}tiny and compiling their cuts ...\n"
        assert (edge.returncode, without_compiling(err)) == (0, capturing.format(""))
        assert "all 2 are here: 200 slots of 5 ms begin\n" in out
        assert "policy lyappo, seed 0: 200 slots of 10 ms at time scale 0.5" in out
        assert "equal the whole model's, bit for bit" in out
        table = [line.split() for line in out.splitlines() if line.startswith(("run ", "simulated "))]
        assert len(table) == 2
        assert table[0][1:] == table[1][1:]
        assert (tmp_path / "run.png").stat().st_size > 10_000
        for index, device in enumerate(devices):
            out, err = device.communicate(timeout=60)
            assert (device.returncode, without_compiling(err)) == (0, capturing.format(f"device {index} of "))
            assert "200 slots of 5 ms begin" in out  # the edge told them
            assert "0 wrong" in out
    finally:
        for process in (edge, *devices):
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "--policy", "mystic"], "policy: no 'mystic'"),
        (["run", "--duration", "0"], "--duration"),
        (["run", "--time-scale", "0"], "time_scale"),
        (["run", "--images", "/nowhere"], "images: /nowhere is no folder"),
        (["run", "--set", "p95_latency_s=1.0"], "p95_latency_s"),
        (["device", "--server", "nowhere"], "HOST:PORT"),
        (["device", "--server", "localhost:1", "--index", "9"], "index: the scenario has devices 0..3, not 9"),
        (["edge", "--scenario", "table9"], "no preset 'table9'"),
        (["edge", "--scenario", "table2", "--time-scale", "-1"], "time_scale"),
        (["edge", "--scenario", "table2", "--set", "p95_latency_s=1.0"], "p95_latency_s"),
        (["serve", "--time-scale", "2"], "No such option: --time-scale"),
        (["serve", "--scenario", "busy"], "now a verb: splitinfer edge --scenario busy"),
        (["edge", "--warm"], "No such option: --warm"),
        (["edge", "--models", "resnet18"], "No such option: --models"),
        (["device", "--server", "localhost:1", "--meter", "sun"], "meter"),
    ],
)
def test_mistakes_are_one_line(arguments, reason, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("verb", ["run", "edge"])
def test_a_policy_that_allocates_for_itself_is_one_line(verb, world, tmp_path, capsys):
    assert main([verb, "--scenario", str(world[0]), "--policy", str(write_joint_run(tmp_path))]) == 2
    said = capsys.readouterr()
    assert without_compiling(said.err) == (
        "splitinfer: error: policy: ppo allocates for itself; live runs allocate by a rule. Use simulate\n"
    )
