"""Signals, full disks, damaged weights, two who write at once: one line, and what was done is kept."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from splitinfer.cli.main import main
from splitinfer.errors import InputError
from splitinfer.learning.run_folder import POLICY_FILE
from splitinfer.profiling import profile
from splitinfer.simulation import Scenario
from tests.runtime.loop.conftest import CARD, write_joint_run

PROGRAM = [sys.executable, "-m", "splitinfer.cli.main"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("world")
    card = folder / "plain.toml"
    card.write_text(CARD.format(factory="plain"))
    scenario = Scenario(
        name="tiny",
        services=(profile(card),),
        num_devices=1,
        arrival_rate_hz=8.0,
        slots_per_period=5,
        cycles_per_mac=20.0,
        max_local_frequency_hz=1.5e8,
        bandwidth_hz=2e5,
    )
    scenario.save(folder / "tiny.toml")
    return ["--scenario", str(folder / "tiny.toml"), "--card", str(card)]


def test_a_live_run_that_is_told_to_end_keeps_its_trace_and_leaves_no_folder(world: list[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    command = [*PROGRAM, "run", *world, "--duration", "600", "--time-scale", "0.5", "--trace", str(trace)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        while process.poll() is None and not (trace.exists() and trace.read_text().count("\n") > 3):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    kinds = [json.loads(line)["event"] for line in trace.read_text().splitlines()]
    assert kinds[0] == "start"
    assert "period" in kinds
    assert list(tmp_path.glob("splitinfer-run-*")) == []


SIGNALLED = {
    "in a text that is executed": 'exec("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")',
    "in a finalizer": """
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


Last()
""",
}


@pytest.mark.parametrize("where", SIGNALLED)
def test_whoever_is_told_to_end_ends_wherever_python_is(where: str, tmp_path: Path) -> None:
    body = f"import os\nimport signal\nimport time\n{SIGNALLED[where]}\nfor _ in range(600):\n    time.sleep(0.1)\n"
    (tmp_path / "slow_policy.py").write_text(body)
    command = [*PROGRAM, "simulate", "--policy", "slow_policy:Slow", "--slots", "1"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_and_costs_no_report(world: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *world, "--duration", "1", "--time-scale", "0.2", "--trace", "/dev/full"]) == 0
    said = capfd.readouterr()
    assert "equal the whole model's" in said.out
    assert said.err.startswith("--trace: /dev/full ends here: No space left on device")
    code = "import sys; from splitinfer.cli.main import main; sys.exit(main(['models']))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(("option", "name"), [("--save", "full.tex"), ("--save", "full.csv"), ("--plot", "full.png")])
def test_a_full_disk_names_the_file(option: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = tmp_path / name
    full.symlink_to("/dev/full")
    ask = ["simulate", "--scenario", "table2", "--slots", "200"]
    assert main([*ask, "--compare", "fixed", "--seeds", "1", option, str(full)]) == 2
    assert capsys.readouterr().err.endswith(f"{full}: No space left on device\n")


def test_weights_that_are_no_numbers_or_no_network_decide_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_joint_run(tmp_path)
    file = folder / POLICY_FILE
    whole, weights = file.read_bytes(), load_file(file)
    name = sorted(weights)[-1]
    values = weights[name]

    def said() -> str:
        assert main(["simulate", "--policy", str(folder), "--slots", "100"]) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    for other, words in (
        (np.full_like(values, np.nan), f"{name} holds numbers that are not finite"),
        (values.astype(np.float64), f"{name} is of float64, not float32"),
        (values.astype(np.int8), f"{name} is of int8, not float32"),
        (values[..., :1].copy(), "layer"),
        (values[None].copy(), "layer"),
        (values.reshape(-1)[:0].copy(), "layer"),
    ):
        save_file(weights | {name: other}, file)
        assert words in said()
    file.write_bytes(whole.replace(b'"F32"', b'"BF16"', 1))
    assert "is damaged" in said()
    file.write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in said()
    file.unlink()
    file.mkdir()
    assert "cannot read" in said()


def test_two_trainings_into_one_folder(tmp_path: Path) -> None:
    from splitinfer.learning.settings import TrainingSettings
    from splitinfer.learning.training import train

    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(InputError, match="another training writes into"):
            train(Scenario.preset("table2"), TrainingSettings.for_algorithm("lyappo", slots=10), tmp_path)
    finally:
        os.close(held)
    assert list(tmp_path.iterdir()) == []
