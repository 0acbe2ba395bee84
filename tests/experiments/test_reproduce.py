"""A tiny sweep through the command line: files, resuming, processes, mistakes."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from splitinfer.cli import reproduce as verb
from splitinfer.cli.main import main
from splitinfer.experiments import load_sweep
from splitinfer.experiments.jobs import Store, run_job
from splitinfer.experiments.reproduce import Plan, reproduce
from splitinfer.policies import named_policy
from splitinfer.simulation import Scenario, simulate

TINY = """
num_devices = 1
services = ["mobilenet_v3_small"]
arrival_rate_hz = 2.0
slots_per_period = 5
"""
EFFORT = ("--training-slots", "1000", "--training-seeds", "1", "--slots", "400", "--seeds", "2")


@pytest.fixture
def world(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


# What starts in the background of a shell ignores interrupts, and so do its children; the command here must not.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from splitinfer.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def run(world, out, figure, *more):
    return main(["reproduce", figure, "--quick", "--scenario", str(world), "--out", str(out), *EFFORT, *more])


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def made(out, ending):
    """Return the file of that ending; policies and effort are not the figure's, so a few digits are in its name."""
    (path,) = (
        path for path in out.iterdir() if re.fullmatch(rf"fig\d-tiny-quick-[0-9a-f]{{6}}{re.escape(ending)}", path.name)
    )
    return path


def test_a_figure_is_made_and_not_made_twice(world, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = (world, out, "fig6", "--jobs", "1", "--policies", "lyappo-paper,random,fixed")
    assert run(*arguments) == 0
    first = capsys.readouterr().out
    assert "ran 9 of 9 jobs" in first
    assert "the paper" in first
    assert "(quick: not for conclusions)" in first
    rows = read(made(out, ".csv"))
    assert len(rows) == 3 * 3 * 2, "points, policies, seeds"
    assert {row["policy"] for row in rows} == {"lyappo-paper", "random", "fixed"}
    assert {row["value"] for row in rows} == {"0.1", "0.3", "0.5"}
    assert {row["training_seed"] for row in rows if row["policy"] == "lyappo-paper"} == {"0"}
    assert made(out, ".png").read_bytes().startswith(b"\x89PNG")
    markdown = made(out, ".md").read_text()
    assert "| LyaPPO (paper) |" in markdown
    titles = [line for line in markdown.splitlines() if line.startswith("**")]
    assert titles
    assert all(title.endswith("(quick: not for conclusions)**") for title in titles)

    assert run(*arguments, "--format", "svg") == 0
    assert "ran 0 of 9 jobs" in capsys.readouterr().out
    assert "<svg" in made(out, ".svg").read_text()[:2000]

    assert run(*arguments) == 0
    again = capsys.readouterr().out
    assert "ran 0 of 9 jobs, 9 were there already" in again
    assert read(made(out, ".csv")) == rows
    assert made(out, ".md").read_text() == markdown

    # Of an interrupted sweep what was finished stays: here all but one policy's evaluation at one point.
    lost = next((out / "jobs").glob("lyappo-paper-*.json"))
    lost.write_text("{")
    trained = {path: (path / "run.json").stat().st_mtime_ns for path in (out / "trained").iterdir()}
    assert run(*arguments) == 0
    assert "ran 1 of 9 jobs" in capsys.readouterr().out
    assert read(made(out, ".csv")) == rows
    assert {path: (path / "run.json").stat().st_mtime_ns for path in (out / "trained").iterdir()} == trained


def test_figures_share_the_world_that_they_have_in_common(world, tmp_path):
    plan = Plan(
        (load_sweep("fig6"), load_sweep("fig7")),
        base=Scenario.load(world),
        quick=True,
        policies=("random",),
        changes={"evaluation_slots": 100, "evaluation_seeds": (0,)},
    )
    # 0.3 W in the one and 20 GHz in the other are the scenario itself.
    outcome = reproduce(plan, tmp_path, processes=1)
    assert (outcome.jobs, outcome.jobs_run) == (5, 5)


def test_a_row_is_the_run_that_simulate_makes(world, tmp_path):
    plan = Plan(
        (load_sweep("fig6"),), base=Scenario.load(world), policies=("fixed",), changes={"evaluation_slots": 3000}
    )
    value, job = plan.jobs_of(plan.sweeps[0])[1]
    store = Store(tmp_path)
    store.prepare()
    run = run_job(job, store)[1]
    alone = simulate(job.world, named_policy("fixed", job.world), 3000, seed=1)
    assert value == job.world.max_power_w == 0.2
    assert run["energy_j"] == alone.energy_j
    assert run["latency_mean_s"] == pytest.approx(alone.latency_s.mean())
    assert run["queue_local_cycles"] == pytest.approx(alone.mean_queue[0].sum())
    assert run["cut_share"] == run["cut_share_by_service"][0] == 1, "fixed cuts are everything on the device"
    # (34) by hand: one device, everything local, no queue elsewhere
    assert run["reward"] == pytest.approx(-(1e3 * alone.energy_j + 0.6 * alone.mean_queue[0].sum() / 1e9))
    # Table II's U^l is too small to slow a device down while there is much to do.
    assert 0.5 < run["speed_local"] <= 1


def test_processes_find_what_one_finds_and_curves_are_kept(world, tmp_path, capsys):
    one, several = tmp_path / "one", tmp_path / "several"
    assert run(world, one, "fig3", "--jobs", "1", "--policies", "ppo,lyappo-paper,random") == 0
    assert run(world, several, "fig3", "--jobs", "2", "--policies", "ppo,lyappo-paper,random") == 0
    assert read(made(one, ".csv")) == read(made(several, ".csv"))
    curves = read(made(several, "-curves.csv"))
    assert {row["policy"] for row in curves} == {"ppo", "lyappo-paper"}
    assert made(several, ".png").stat().st_size > 0
    record = json.loads(next((several / "jobs").glob("ppo-*.json")).read_text())
    assert len(record["runs"]) == 2
    assert not list((several / "trained").glob("*.part"))


def test_an_interrupt_keeps_what_is_done_and_leaves_nothing_behind(world, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", INTERRUPTIBLE, "reproduce", "fig3", "--scenario", str(world)]
    command += ["--out", str(out), *EFFORT, "--training-slots", "1000000000", "--jobs", "2", "--policies", "ppo,random"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (list(out.glob("jobs/random-*.json")) and list(out.glob("trained/*.part/curve.csv"))):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # to the parent alone: it has to end the others
        _, error = process.communicate()
    assert process.returncode == 130
    assert "give the same command again" in error
    assert "Traceback" not in error
    assert len(list(out.glob("jobs/*"))) == 1
    assert not list(out.glob("trained/*"))


def test_a_mistake_inside_a_process_is_one_line(world, tmp_path, capsys):
    world.write_text(TINY + "p95_latency_s = 0.5\n")  # nothing learns with a target
    assert run(world, tmp_path / "out", "fig6", "--jobs", "2", "--policies", "ppo,ddpg") == 2
    error = capsys.readouterr().err
    assert "p95_latency_s" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["fig8"], "fig8"),
        (["fig5", "--policies", "magic"], "magic"),
        (["fig3", "--policies", "myopic"], "fig3"),
        (["fig5", "--scenario", "nowhere"], "nowhere"),
        (["fig5", "--jobs", "0"], "--jobs"),
        (["fig5", "--format", "gif"], "--format"),
    ],
)
def test_mistakes_are_one_line(arguments, named, tmp_path, capsys):
    assert main(["reproduce", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(verb, "find_spec", lambda package: None)
    assert main(["reproduce", "fig5", "--out", str(tmp_path)]) == 2
    assert "splitinfer[learn]" in capsys.readouterr().err
