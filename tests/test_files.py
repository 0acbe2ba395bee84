"""Files that people give: each kind of what is no file is one line at once, in every verb that reads one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from splitinfer.cli.main import main
from splitinfer.data import data_folder
from splitinfer.errors import InputError, ScenarioError
from splitinfer.files import read_text
from splitinfer.graph import SplitModel
from splitinfer.runtime.loop import LoopSettings
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


@pytest.mark.parametrize("key", ["a" + ".a" * 20_000, "['a'" + " . 'a'" * 20_000 + "]\nb", "x = {a" + ".a" * 20_000])
def test_a_key_without_end_is_refused_before_it_is_read(key, tmp_path, capsys):
    given(tmp_path, lambda path: path.write_text(f"{key} = 1\n"))
    assert "nested too deeply" in said(VERBS["scenario"], tmp_path, capsys)


DAMAGED = {
    "text of another encoding": (b"\xff\xfen\x00a\x00", "it is no UTF-8 text (line 1)"),
    "a number without end": (b'{"schema": %s}' % (b"9" * 5000), "has too many digits"),
}
"""By what was done to it: the content of a file, and what is said of JSON; TOML has `schema = ` in front."""


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("power profile", "picture")])
def test_what_is_no_text_or_holds_no_number_is_said_in_plain_words(verb, what, tmp_path, capsys):
    content, words = DAMAGED[what]
    given(
        tmp_path,
        lambda path: path.write_bytes(
            content.replace(b'{"schema":', b"schema =").replace(b"}", b"") if path.suffix == ".toml" else content
        ),
    )
    assert words in said(VERBS[verb], tmp_path, capsys)


WRONG = {
    ("cuts", 3, "macs_before"): float("inf"),
    ("cuts", 3, "crossing", 0, "shape", 1): 10**30,
    ("cuts", 3, "crossing", 0, "shape", 0): -1,
    ("cuts", 3, "output_shape"): "x",
    ("total_macs",): 10**400,
    ("uncounted_ops",): None,
    ("outputs", 0, "dtype"): "float33",
    ("codec_bits_per_element", "uint8", 0): float("nan"),
}


@pytest.mark.parametrize("path", WRONG, ids=lambda path: ".".join(map(str, path)))
def test_a_profile_s_wrong_value_is_named_by_its_place(path, tmp_path, capsys):
    record = inner = json.loads((data_folder("profiles") / "squeezenet1_1.json").read_text())
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = WRONG[path]
    (tmp_path / "given.json").write_text(json.dumps(record))
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    assert f"is not a profile: {place} must be" in said(VERBS["profile of a service"], tmp_path, capsys)


@pytest.mark.parametrize("hz", ["1e300", "1e-300", "1.5", "-1.0", "nan", "inf", "true"])
def test_frequencies_that_are_none_or_in_another_unit_are_refused(hz, tmp_path, capsys):
    card = (data_folder("devices") / "jetson_nano.toml").read_text().replace("[0.9216e9]", f"[{hz}]")
    (tmp_path / "given.toml").write_text(card)
    assert "cores[0].frequency_hz" in said(VERBS["device card"], tmp_path, capsys)


def test_numbers_that_cannot_be_computed_with_are_refused(capsys):
    assert main(["simulate", "--slots", "1", "--set", "latency_price_w=1e300"]) == 2
    assert "latency_price_w: must be 0 or between 1e-60 and 1e+30, not 1e+300" in capsys.readouterr().err


def test_odd_words_stay_one_short_line(tmp_path, capsys):
    assert main(["simulate", "--scenario", "x\udcff.toml"]) == 2
    assert "an argument is no UTF-8 text: 'x\\udcff.toml'" in capsys.readouterr().err
    (tmp_path / "given.toml").write_text(f'"\\u001b[2J{"x" * 100_000}" = 1')
    line = said(VERBS["scenario"], tmp_path, capsys)
    assert "\\x1b[2Jxxx" in line
    assert len(line) < 3000


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
        ({"slots_per_period": 10**20}, "slots_per_period"),
        ({"seed": True}, "seed"),
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


@pytest.mark.parametrize(
    "name", ["join_s", "silence_s", "lease_s", "p95_target_s", "patience_s", "starts_in_s", "time_scale"]
)
@pytest.mark.parametrize("value", [1e18, float("inf"), float("nan"), -1.0])
def test_waits_of_a_live_run_that_no_clock_counts_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"^{name} must be "):
        LoopSettings(slots=1, **{name: value})


def test_a_live_run_at_an_impossible_pace_is_refused_before_it_starts(capsys):
    for scale in ("1e308", "5e-324"):
        assert main(["run", "--time-scale", scale]) == 2
        assert "time_scale must be from 1e-06 to 1e+06" in capsys.readouterr().err


DIGITS = "9" * 5000
TOO_MUCH = {
    "a size of thousands of digits": (["profile", "squeezenet1_1", "--input-size", DIGITS], "--input-size is"),
    "a size that no memory holds": (["profile", "squeezenet1_1", "--input-size", "99999999"], "100,000,000 pixels"),
    "a batch that no memory holds": (["profile", "squeezenet1_1", "--batch", "99999999999"], "elements; at most"),
    "a seed of too many bits": (["train", "lyappo", "--seed", "4294967296"], "seed: must be at most 4294967295"),
    "a camera beyond all cameras": (["infer", "squeezenet1_1", "--cut", "1", "--input", "camera:99999"], "camera:0"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_more_than_can_be_is_one_line(what, capsys):
    arguments, words = TOO_MUCH[what]
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("cut", [DIGITS, "\u00b2", "-" + DIGITS])
def test_a_cut_that_is_no_number_is_a_name_that_no_layer_has(cut):
    split = SplitModel.capture(torch.nn.Sequential(torch.nn.Linear(2, 2)), (torch.ones(1, 2),), name="one")
    with pytest.raises(InputError, match="one has no layer"):
        split.find_cut(cut)
