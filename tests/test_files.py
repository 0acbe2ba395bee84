"""Files that people give: each kind of what is no file is one line at once, in every verb that reads one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from splitinfer.cli.main import main
from splitinfer.errors import ScenarioError
from splitinfer.files import read_text
from splitinfer.simulation import Scenario

DEEP = "[" * 100_000
VERBS = {
    "scenario": ["simulate", "--slots", "10", "--scenario", "FILE.toml"],
    "profile of a service": ["simulate", "--slots", "10", "--set", 'services=["FILE.json"]'],
    "device card": ["simulate", "--slots", "10", "--device", "FILE.toml"],
    "model card": ["profile", "FILE.toml"],
    "sweep": ["reproduce", "FILE.toml"],
    "run folder": ["simulate", "--slots", "10", "--policy", "FOLDER"],
    "power profile": ["calibrate", "--power-profile", "FILE.xml"],
    "picture": ["infer", "resnet18", "--cut", "0", "--server", "127.0.0.1:1", "--input", "FILE.png"],
}


def said(arguments, folder, capsys):
    arguments = [one.replace("FILE", str(folder / "given")).replace("FOLDER", str(folder)) for one in arguments]
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("splitinfer: error: ")
    assert "Traceback" not in "\n".join(lines)
    return lines[-1]


def given(folder, make):
    for name in ("given.toml", "given.json", "given.xml", "given.png", "run.json"):
        make(folder / name)


@pytest.mark.parametrize("verb", VERBS)
def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(verb, tmp_path, capsys):
    given(tmp_path, os.mkfifo)
    assert "not a regular file" in said(VERBS[verb], tmp_path, capsys)


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("power profile", "picture")])
def test_what_is_nested_without_end_is_refused(verb, tmp_path, capsys):
    given(tmp_path, lambda path: path.write_text(f"x = {DEEP}" if path.suffix == ".toml" else DEEP))
    assert "nested too deeply" in said(VERBS[verb], tmp_path, capsys)


def test_a_file_without_end_is_not_read_to_it(capsys):
    assert main(["simulate", "--scenario", "/dev/zero"]) == 2
    assert "not a regular file" in capsys.readouterr().err


def test_text_is_read_within_its_bound_without_a_byte_order_mark(tmp_path):
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbf{}")
    assert json.loads(read_text(tmp_path / "text")) == {}
    with pytest.raises(OSError, match="more than 3"):
        read_text(tmp_path / "text", max_bytes=3)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"arrival_rate_hz": 1e308}, "arrival_rate_hz"),
        ({"arrival_rate_hz": (0.2, 1e7)}, "arrival_rate_hz"),
        ({"slot_s": 1e30}, "arrival_rate_hz"),
        ({"num_devices": 10**9}, "num_devices"),
    ],
)
def test_worlds_that_no_memory_holds_are_refused_by_name(changes, field):
    with pytest.raises(ScenarioError, match=rf"^{field}: "):
        Scenario.preset("table2").replace(**changes)


def test_arrays_of_words_are_no_inputs(tmp_path, capsys):
    np.savez(tmp_path / "answers.npz", output=np.zeros(3, np.float32), inputs=np.array(["photo.jpg"]))
    arguments = ["infer", "resnet18", "--cut", "3", "--server", "127.0.0.1:1", "--input", str(tmp_path / "answers.npz")]
    assert main(arguments) == 2
    assert "holds no tensors: TypeError: an array of <U9, which are no numbers" in capsys.readouterr().err


def test_nobody_waits_for_ever(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros(3, np.float32))
    arguments = ["infer", "resnet18", "--cut", "3", "--server", "127.0.0.1:1", "--input", str(tmp_path / "x.npy")]
    assert main([*arguments, "--wait", "inf"]) == 2
    assert "--wait: must be a number of seconds up to 100000000, not inf" in capsys.readouterr().err
