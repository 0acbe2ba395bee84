"""Every verb that writes a file: on a full disk the file is the old one or absent, and the mistake one line."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from splitinfer.cli.main import main
from splitinfer.errors import InputError
from splitinfer.files import alone_in, is_abandoned, replacing
from splitinfer.models.answers import AnswerFile

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
"""
CARD = """
source = "writing_net:build"
seed = 0
[[inputs]]
shape = [3, 8, 8]
"""
OLD = "what was there before\n"
ROOM_BYTES = 20
SHORT = ["--slots", "50"]
# What is run, what it writes, and whether it may replace what is there.
VERBS = {
    "card": (["card", "new", "writing_net:build", "--input", "3x8x8", "--out", "own.toml"], "own.toml", False),
    "scenario": (["scenario", "new", "world.toml"], "world.toml", False),
    "profile": (["profile", "net.toml", "--no-latency", "--save", "net.json"], "net.json", True),
    "its plot": (["profile", "net.toml", "--no-latency", "--plot", "net.png"], "net.png", True),
    "export": (
        ["export", "net.toml", "--cut", "1", "--format", "pt2", "--out", "halves", "--overwrite"],
        "halves/head.pt2",
        True,
    ),
    "simulate": (["simulate", *SHORT, "--plot", "run.pdf"], "run.pdf", True),
    "comparison": (
        ["simulate", *SHORT, "--seeds", "2", "--compare", "fixed,random", "--save", "all.csv"],
        "all.csv",
        True,
    ),
    "pareto": (
        ["pareto", *SHORT, "--local", "1e15:1e16:2", "--transmission", "1e9:1e10:2", "--plot", "p.png"],
        "p.png",
        True,
    ),
    "calibrate": (["calibrate", "--models", "net.toml", "--repeats", "1", "--out", "fit.toml"], "fit.toml", True),
    "certs": (["certs", "--out", "certs", "--hosts", "edge.local"], "certs/server.key", True),
    "train": (["train", "ppo", "--steps", "100", "--set", "num_devices=1", "--out", "runs"], "runs/run.json", False),
    "reproduce": (
        ["reproduce", "fig7", "--quick", "--policies", "random", *SHORT, "--seeds", "1", "--jobs", "1", "--out", "all"],
        "all/*.csv",
        True,
    ),
}


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond a few bytes in the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "writing_net.py").write_text(NET)
    (tmp_path / "net.toml").write_text(CARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_on_a_full_disk_the_old_file_stays(verb: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, name, replaces = VERBS[verb]
    assert main(command) == 0  # compiles and caches what it can, too
    (file,) = folder.glob(name)
    assert file.stat().st_size > ROOM_BYTES
    if replaces:
        file.write_text(OLD)
    elif file.parent == folder:
        file.unlink()
    else:
        shutil.rmtree(file.parent)
    for job in folder.glob("all/jobs/*"):
        job.unlink()
    capsys.readouterr()
    with full_disk():
        code = main(command)
    said = capsys.readouterr().err
    assert code == 2, said
    assert "File too large" in said
    assert said.strip().splitlines()[-1].startswith("splitinfer: error: ")
    assert "Traceback" not in said
    assert file.read_text() == OLD if replaces else not file.exists()
    assert [left for left in folder.rglob("*") if ".part" in left.name] == []


@pytest.mark.parametrize("name", ["answers.json", "answers.npz"])
def test_answers_that_find_no_room_leave_the_old_ones(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(OLD)
    answers = AnswerFile.open(tmp_path / name)
    answers.add("in.npy", torch.ones(4, 4), [])
    with full_disk(), pytest.raises(InputError, match="File too large"):
        answers.close()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, OLD)]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "figures.csv"
    file.write_text(OLD)
    file.chmod(0o640)

    def interrupted() -> None:
        with replacing(file) as part:
            part.write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with replacing(file) as first, replacing(tmp_path / "other.csv") as second:
        first.write_text("new")
        second.write_text("another")
        assert file.read_text() == OLD
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    ended = subprocess.Popen(["true"])
    ended.wait()
    killed, alive = (tmp_path / f".figures.{pid}.part.csv" for pid in (ended.pid, os.getppid()))
    for left in (killed, alive):
        left.write_text("what a process that was killed left, or one that is at work")
    assert is_abandoned(killed)
    with replacing(file) as part:
        part.write_text("newer")
    assert sorted(tmp_path.iterdir()) == sorted([file, tmp_path / "other.csv", alive])
    with replacing("/dev/null") as part:
        assert part == Path("/dev/null")


def test_two_exports_into_one_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with alone_in(folder / "halves"):
        assert main(["export", "net.toml", "--cut", "1", "--format", "pt2", "--out", "halves"]) == 2
    assert "another export writes into halves now" in capsys.readouterr().err
    assert list((folder / "halves").iterdir()) == []
