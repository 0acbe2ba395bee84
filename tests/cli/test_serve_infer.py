from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitinfer.cli.main import main
from splitinfer.graph import SplitModel
from splitinfer.runtime import EdgeClient
from tests.graph.towers import TWO

CARD = """
source = "tests.runtime.small:plain"
labels = ["zero", "one", "two"]
[[inputs]]
shape = [3, 32, 32]
[preprocessing]
resize = 32
"""
TOWERS = """
source = "tests.graph.towers:Towers"
[[inputs]]
shape = [16]
[[inputs]]
shape = [256]
"""
RUN = [sys.executable, "-c", "import sys; from splitinfer.cli.main import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("infer")
    (folder / "plain.toml").write_text(CARD)
    (folder / "towers.toml").write_text(TOWERS)
    np.savez(folder / "both.npz", *(tensor.numpy() for tensor in TWO))
    Image.radial_gradient("L").convert("RGB").save(folder / "photo.jpg")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """A ``splitinfer serve`` of its own; its address. Checks how it starts and how it stops."""
    command = [*RUN, "serve", "--models", f"{folder}/plain.toml,{folder}/towers.toml", "--port", "0"]
    command += ["--threads", "2", "--warm"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    started = re.fullmatch(r"serving plain, towers on (127\.0\.0\.1:\d+) \(Ctrl-C stops\)\n", line)
    assert started, (line, process.stderr.read())
    yield started[1]
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    said = "".join(
        f"splitinfer: {what} {model} ...\n"
        for what in ("capturing", "compiling the tails of")
        for model in ("plain", "towers")
    )
    assert (process.returncode, output, errors) == (0, "stopped\n", said)


def infer(folder: Path, *more: str) -> list[str]:
    return ["infer", str(folder / "plain.toml"), "--input", str(folder / "photo.jpg"), *more]


def test_infer_checks_and_breaks_down(folder: Path, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(infer(folder, "--cut", "2", "--server", server, "--check", "--repeat", "3")) == 0
    output = capsys.readouterr().out
    assert f"plain, cut 2 of 3 after 2, edge {server}" in output
    assert "the weights are random" in output
    assert "checked: all 3 answers equal the whole model's, bit for bit" in output
    assert [line.split()[0] for line in output.splitlines() if re.match(r"(head|encode|wire|tail|total) ", line)] == [
        "head",
        "encode",
        "wire",
        "tail",
        "total",
    ]


def test_infer_takes_a_set_cut_by_name_and_number(
    folder: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with EdgeClient(server) as client:
        known = client.describe().models["towers"].set_cuts
    assert known  # looked for at the start, with --warm
    asked = ["infer", str(folder / "towers.toml"), "--input", str(folder / "both.npz"), "--server", server, "--check"]
    assert known[-1].name.startswith("{")
    for cut in (known[-1].name, str(known[-1].index)):
        assert main([*asked, "--cut", cut, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["cut"], report["checked"]) == (known[-1].index, 1)
    assert main([*asked, "--cut", known[-1].name]) == 0
    assert f"towers, set cut {known[-1].index} after {known[-1].name}" in capsys.readouterr().out
    for cut, says in (
        ("{no.such}", "has no set cut '{no.such}'"),
        (str(known[-1].index + 1), "and the set cuts 100000"),
    ):
        assert main([*asked, "--cut", cut]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize("cut", ["0", "2", "3"])
def test_infer_as_json(folder: Path, server: str, cut: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(infer(folder, "--cut", cut, "--server", server, "--check", "--json", "--stream")) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["cut"], report["checked"], len(report["top"])) == (int(cut), 1, 5)
    assert (report["bytes_up"] > 0) == (cut != "3")
    assert sum(entry["probability"] for entry in report["top"]) <= 1.0 + 1e-6


def test_infer_in_a_codec_that_rounds(folder: Path, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--cut", "1", "--server", server, "--check", "--codec", "float16"]
    assert main(infer(folder, *more, "--repeat", "2")) == 0
    assert re.search(
        r"checked: all 2 answers equal the tail's on what float16 leaves, bit for bit, and differ from the whole "
        r"model's by up to \d",
        capsys.readouterr().out,
    )
    reports = []
    for arguments in (more, more[:-2]):
        assert main(infer(folder, *arguments, "--json")) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert [report["codec"] for report in reports] == ["float16", "raw"]
    assert reports[0]["bytes_up"] < 0.6 * reports[1]["bytes_up"]
    assert 0 < reports[0]["largest_difference"] < 0.1


def test_infer_starts_a_server_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(infer(folder, "--cut", "0", "--check")) == 0
    assert "(started for this command)" in capsys.readouterr().out


def test_a_wrong_answer_is_exit_code_1(
    folder: Path, server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole model computes something else, as if the split were wrong.
    monkeypatch.setattr(SplitModel, "__call__", lambda split, image: split.run_tail(0, image + 1))
    assert main(infer(folder, "--cut", "2", "--server", server, "--check")) == 1
    assert re.search(r"plain cut 2: leaf 0 differs from the whole model's by up to \S+\n$", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cut", "9"], "cut 9 is out of range"),
        (["--cut", "layer9"], "has no layer 'layer9'"),
        (["--cut", "1", "--server", "nonsense"], "HOST:PORT"),
        (["--cut", "1", "--server", "127.0.0.1:1"], "127.0.0.1:1, or the connection was lost: nothing listens there"),
        (["--cut", "1", "--deadline-s", "-1", "--server", "127.0.0.1:1"], "deadline_s"),
        (["--cut", "1", "--codec", "zip"], "codec: there is no codec 'zip'; known: raw, float16, bfloat16, int8"),
        (["--cut", "1", "--input", "nowhere.jpg", "--server", "127.0.0.1:1"], "nowhere.jpg"),
        (["--cut", "1", "--input", __file__, "--server", "127.0.0.1:1"], "test_serve_infer.py"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, server: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = arguments if "--server" in arguments else [*arguments, "--server", server]
    assert main(infer(folder, *more)) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors


def test_an_edge_that_says_nothing_is_a_missed_deadline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main(infer(folder, "--cut", "1", "--deadline-s", "0.05", "--server", server)) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "(deadline_s, --deadline-s)" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--models", "resnet19", "--port", "0"], "unknown model 'resnet19'"),
        (["--models", ","], "--models"),
        (["--port", "70000"], "--port"),
        (["--drain-s", "nan"], "drain_s"),
    ],
)
def test_serve_refuses_what_makes_no_sense(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors


def test_a_taken_port_is_one_line(folder: Path, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = server.rpartition(":")[2]
    assert main(["serve", "--models", f"{folder}/plain.toml", "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def infer_from(folder: Path, *more: str) -> list[str]:
    return ["infer", str(folder / "plain.toml"), "--cut", "2", *more]


def test_folders_globs_and_videos_are_answered_one_by_one(
    folder: Path, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    av = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    sources = ["--input", str(tmp_path), "--input", str(tmp_path / "[12].png"), "--frames", "2"]
    out = tmp_path / "answers.jsonl"
    assert main(infer_from(folder, *sources, "--server", server, "--check", "--output", str(out), "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    names = [Path(one["input"]).name for one in report["answers"]]
    assert names == ["0.png", "1.png", "2.png", "clip.mp4#0", "clip.mp4#1", "1.png", "2.png"]
    assert (report["inputs"], report["checked"]) == (7, 7)
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [line["input"] for line in lines] == [one["input"] for one in report["answers"]]
    assert lines[1]["answer"] == lines[5]["answer"] != lines[0]["answer"]
    assert main(infer_from(folder, "--input", str(tmp_path / "*.png"), "--server", server)) == 0
    text = capsys.readouterr().out
    assert "one answer every" in text
    assert "3 in all" in text
    assert "p99" not in text, "three times have no 99th percentile"


def test_the_answer_is_described_and_kept(
    folder: Path, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("json", "npz"):
        out = tmp_path / f"answer.{suffix}"
        assert main(infer(folder, "--cut", "2", "--server", server, "--output", str(out))) == 0
        assert f"wrote {out}" in capsys.readouterr().out
    held = np.load(tmp_path / "answer.npz")
    record = json.loads((tmp_path / "answer.json").read_text("utf-8"))[0]
    np.testing.assert_allclose(np.array(record["answer"]["answer"]["values"]), held["0/answer"], rtol=1e-6)
    assert record["input"] == str(held["inputs"][0]) == str(folder / "photo.jpg")


TWO_INPUTS = """
source = "{module}:Pair"
[[inputs]]
shape = [3, 8, 8]
[[inputs]]
shape = [4]
{more}
"""
PAIR = """
import torch
class Pair(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 4)
    def forward(self, picture, numbers):
        return {"sum": self.a(picture).mean((2, 3)) + self.b(numbers), "numbers": numbers}
def both(picture):
    return torch.ones(1, 3, 8, 8), torch.arange(4.0)[None]
def wrong(picture):
    return [1, 2]
"""


def test_no_input_is_invented(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "pairnet.py").write_text(PAIR, "utf-8")
    rules = "[preprocessing]\nresize = [8, 8]\n"
    (tmp_path / "pair.toml").write_text(TWO_INPUTS.format(module="pairnet", more=rules), "utf-8")
    named = TWO_INPUTS.format(module="pairnet", more="")
    (tmp_path / "named.toml").write_text('preprocess_with = "pairnet:both"\n' + named, "utf-8")
    (tmp_path / "wrong.toml").write_text('preprocess_with = "pairnet:wrong"\n' + named, "utf-8")
    np.savez(
        tmp_path / "both.npz", picture=np.ones((1, 3, 8, 8), np.float32), numbers=np.arange(4, dtype=np.float32)[None]
    )
    photo = str(folder / "photo.jpg")

    def run(card: str, source: str, *more: str) -> int:
        return main(["infer", card, "--cut", "1", "--input", source, *more])

    assert run("pair.toml", photo) == 2
    assert "pair has 2 inputs, and its card makes only the first from a picture" in capsys.readouterr().err
    assert run("wrong.toml", photo) == 2
    assert "pairnet:wrong must return a tensor or a tuple of tensors" in capsys.readouterr().err
    answers = []
    for card, source in (("pair.toml", "both.npz"), ("named.toml", photo)):
        assert run(card, source, "--check", "--json") == 0
        answers.append(json.loads(capsys.readouterr().out)["answer"])
    assert answers[0] == answers[1]
    assert [part["name"] for part in answers[0]] == ["sum", "numbers"]
    assert run("pair.toml", "both.npz") == 0
    assert re.search(r"sum +float32 +1x4 +\S+ to ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nothing/*.png"], "nothing matches nothing/*.png"),
        (["--input", "camera:front"], "write camera:0"),
        (["--output", "answer.txt"], "write a file that ends in .json, .jsonl, .npz"),
        (["--output", "/nowhere/answer.json"], "cannot write /nowhere/answer.json"),
        (["--max-pixels", "10"], "max_pixels is 10"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(infer(folder, "--cut", "2", *arguments)) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors


def test_infer_waits_for_a_server_that_is_still_starting(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    server = f"127.0.0.1:{port}"
    assert main(infer(folder, "--cut", "2", "--server", server)) == 2
    assert main(infer(folder, "--cut", "2", "--server", server, "--wait", "0.1")) == 2
    capsys.readouterr()
    waiting = subprocess.Popen(
        [*RUN, *infer(folder, "--cut", "2", "--server", server, "--wait", "60")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    serving = subprocess.Popen(
        [*RUN, "serve", "--models", f"{folder}/plain.toml", "--port", port], stdout=subprocess.PIPE, text=True
    )
    try:
        output, errors = waiting.communicate(timeout=90)
        assert waiting.returncode == 0, errors
        assert f"edge {server}" in output
    finally:
        serving.terminate()
        serving.communicate(timeout=30)


def test_a_taken_port_is_said_before_models_are_captured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--models", f"{folder}/plain.toml", "--port", port]) == 2
    said = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "capturing" not in said
