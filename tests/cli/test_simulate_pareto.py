"""The verbs ``simulate`` and ``pareto``: what they print, and how they refuse."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest

from splitinfer.cli.main import main


def output(capsys, *arguments):
    assert main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_run_in_figures(capsys):
    text = output(capsys, "simulate", "--scenario", "busy", "--slots", "1000")
    for word in (
        "mJ per device and slot",
        "local",
        "transmission",
        "mJ per task",
        "under way",
        "stable",
        "p95",
        "resnet50",
    ):
        assert word in text


def test_json_is_one_object_that_agrees_with_the_library(capsys):
    from splitinfer.scheduling import MyopicCut
    from splitinfer.simulation import Scenario, simulate

    record = json.loads(
        output(capsys, "simulate", "--scenario=busy", "--policy=myopic", "--slots=600", "--seed=3", "--json")
    )
    expected = simulate(Scenario.preset("busy"), MyopicCut(), 600, seed=3)
    assert record["energy_j"] == expected.energy_j
    assert record["arrived"] == expected.arrived
    assert record["latency_s"]["p95"] == expected.latency_percentile_s(95)


def test_settings_and_files(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('services = ["resnet18"]\nnum_devices = 2\narrival_rate_hz = 3.0\n')
    text = output(capsys, "simulate", "--scenario", str(path), "--set", "max_local_frequency_hz=2e9", "--slots", "300")
    assert text.startswith("mine, policy fixed")
    assert "resnet18" in text


def test_a_comparison_has_a_row_for_each_policy(capsys):
    text = output(
        capsys, "simulate", "--scenario=busy", "--compare=fixed,fixed:0,0,random,myopic", "--seeds=2", "--slots=300"
    )
    rows = [line.split()[0] for line in text.splitlines() if "±" in line and "means" not in line]
    assert rows == ["fixed", "fixed:0,0", "random", "myopic"]
    record = json.loads(output(capsys, "simulate", "--compare=random", "--seeds=2", "--slots=300", "--json"))
    assert record["policies"][0]["seeds"] == [0, 1]


def test_a_latency_target_shows_beside_what_was_reached(capsys):
    text = output(capsys, "simulate", "--scenario=busy", "--set", "p95_latency_s=1.0", "--slots=1000")
    assert "p95 / target" in text


def test_a_plot_is_written(capsys, tmp_path):
    text = output(capsys, "simulate", "--slots=300", "--plot", str(tmp_path / "run.png"))
    assert "wrote" in text
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_pareto_marks_the_scenarios_weights(capsys, tmp_path):
    arguments = ["pareto", "--scenario=busy", "--local=1e17:1e18:2", "--transmission=1e11:1e11:1", "--slots=2000"]
    text = output(capsys, *arguments, "--plot", str(tmp_path / "front.png"))
    assert "the scenario's" in text
    assert (tmp_path / "front.png").exists()
    points = json.loads(output(capsys, *arguments, "--json"))["points"]
    assert [point["scenario_weights"] for point in points] == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["simulate", "--scenario", "nowhere"], "nowhere"),
        (["simulate", "--scenario", "no/such.toml"], "cannot read"),
        (["simulate", "--policy", "lucky"], "lucky"),
        (["simulate", "--set", "max_power_w=-1"], "max_power_w"),
        (["simulate", "--set", "max_power_w"], "field=value"),
        (["simulate", "--set", 'services=["resnet5000"]'], "resnet5000"),
        (["simulate", "--policy", "fixed:0,99"], "99"),
        (["simulate", "--plot", "run.txt"], "--plot"),
        (["simulate", "--solver", "magic", "--slots", "10"], "solver"),
        (["simulate", "--slots", "0"], "slots"),
        (["simulate", "--compare", "random", "--plot", "x.txt"], "--plot"),
        (["simulate", "--compare", "random", "--slots", "10", "--plot", "x.png", "--width", "0"], "--width"),
        (["simulate", "--compare", "random", "--save", "x.xls"], "--save"),
        (["simulate", "--save", "x.csv"], "--save"),
        (["pareto", "--local", "1:2"], "--local"),
        (["pareto", "--transmission", "0:2:3"], "--transmission"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(capsys, arguments, word):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert word in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_comparison_is_kept_for_a_paper(capsys, tmp_path):
    command = ["simulate", "--scenario=busy", "--compare=fixed,random", "--slots=500", "--seeds=3"]
    for ending in ("csv", "md", "tex"):
        text = output(capsys, *command, "--save", str(tmp_path / f"table.{ending}"))
        assert f"wrote {tmp_path / f'table.{ending}'}" in text
    said = json.loads(output(capsys, *command, "--json"))["policies"]
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy"], row["seed"]) for row in rows] == [
        (p, str(s)) for p in ("fixed", "random") for s in range(3)
    ]
    for summary in said:
        own = [float(row["energy_j"]) for row in rows if row["policy"] == summary["policy"]]
        assert np.mean(own) == pytest.approx(summary["energy_j"])
        cell = f"{summary['energy_j'] * 1e3:.4f}", f"{summary['energy_j_half_width'] * 1e3:.4f}"
        assert f"| {summary['policy']} | {cell[0]} ± {cell[1]} |" in (tmp_path / "table.md").read_text()
        assert f"{summary['policy']} & ${cell[0]} \\pm {cell[1]}$ &" in (tmp_path / "table.tex").read_text()
    for name, width in (("column.pdf", "3.5"), ("page.svg", "7")):
        output(capsys, *command, "--plot", str(tmp_path / name), "--width", width)
    page = re.search(r'<svg[^>]* width="([\d.]+)pt"', (tmp_path / "page.svg").read_text())
    assert page is not None
    assert float(page[1]) == pytest.approx(7 * 72)
    assert (tmp_path / "column.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("option", ["--seeds", "--width"])
@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "1e300", "99999999999999999999"])
def test_numbers_that_make_no_run_are_one_line(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--scenario", "busy", "--slots", "10", option, value]) == 2
    assert option in capsys.readouterr().err


def test_where_no_task_is_finished_there_is_no_latency(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--scenario", "busy", "--slots", "1", "--policy", "fixed"]) == 0
    said = capsys.readouterr().out
    assert "nan" not in said
    assert "1 slot of" in said
