"""``splitinfer profile`` and ``splitinfer models`` as people and programs use them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from splitinfer import Profile
from splitinfer.cli.main import main
from splitinfer.models import card_names
from splitinfer.profiling.shipped import shipped_profile_path
from tests.models.tiny import digits_net

CARD = """
source = "tests.models.tiny:digits_net"
[[inputs]]
shape = [1, 8, 8]
"""


@pytest.fixture
def card(tmp_path: Path) -> str:
    path = tmp_path / "digits.toml"
    path.write_text(CARD, encoding="utf-8")
    return str(path)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command line that is wrong; return its one line."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    return shown.err


def test_the_table_without_latency(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "resnet18", "--no-latency"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-8:] == ["KiB", "d^k", "head", "M", "MiB", "tail", "M", "MiB"]
    rows = {line.split()[0]: line.split() for line in lines if line.strip()[:1].isdigit()}
    assert list(rows) == [str(k) for k in range(22)]
    assert rows["0"][1:] == [
        "input",
        "1x3x224x224",
        "1x3x224x224",
        "0",
        "0.0000",
        "588.0",
        "1.0000",
        "0.00",
        "0.0",
        "11.70",
        "44.6",
    ]
    assert rows["21"] == [
        "21",
        "fc",
        "1x1000",
        "-",
        "1,814,073,344",
        "1.0000",
        "0.0",
        "0.0000",
        "11.70",
        "44.6",
        "0.00",
        "0.0",
    ]
    assert rows["7"][3:6] == ["1x64x56x56", "+", "1x128x28x28"]
    (summary,) = [line for line in lines if line.startswith("resnet18:")]
    assert "C = 1.814 GMACs" in summary
    assert "D = 4,816,896 bits" in summary
    assert "11.69 M parameters" in summary
    assert "K = 21" in summary
    assert "first falls below 1 at k = 8 (layer2.0.downsample.0)" in summary
    assert "relu x17" in lines[-1]


def test_latency_is_measured_by_default(card: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", card, "--repeats", "2", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "head ms" in lines[0]
    assert "tail ms" in lines[0]
    assert sum("±" in line for line in lines) == 4 + 1
    assert any("runs, threads: 1" in line for line in lines)


def test_json_is_one_object_with_the_attributes_of_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "resnet18", "--no-latency", "--json"]) == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out)
    shipped = Profile.load(shipped_profile_path("resnet18"))
    # The shipped one knows bits of codecs besides, which this command measures only when asked to.
    assert Profile.from_dict(record) == replace(shipped, codecs=(), codecs_from="")
    assert record["total_macs"] == 1_814_073_344
    assert record["input_bits"] == 4_816_896
    assert record["compute_ratio"] == shipped.compute_ratio.tolist()
    assert record["feature_ratio"] == shipped.feature_ratio.tolist()
    assert len(record["cuts"]) == 22
    assert shown.err == ""


def test_json_has_the_latencies(card: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", card, "--json", "--repeats", "3"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["latency_host"]["repeats"] == 3
    assert all(cut["head_latency"]["median_s"] > 0 for cut in record["cuts"])


def test_save_to_a_file_or_a_folder(card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", card, "--no-latency", "--save", str(tmp_path / "p.json")]) == 0
    assert main(["profile", card, "--no-latency", "--save", str(tmp_path)]) == 0
    assert Profile.load(tmp_path / "p.json") == Profile.load(tmp_path / "digits.json")
    assert Profile.load(tmp_path / "p.json").num_cuts == 3
    assert "--save: there is no folder" in refused(
        ["profile", card, "--no-latency", "--save", str(tmp_path / "no" / "p.json")], _read(capsys)
    )


def _read(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    capsys.readouterr()
    return capsys


def test_plot(card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", card, "--repeats", "1", "--plot", str(tmp_path / "p.png")]) == 0
    with Image.open(tmp_path / "p.png") as image:
        assert image.format == "PNG"
    assert "--plot" in refused(["profile", card, "--plot", str(tmp_path / "p.doc")], _read(capsys))


@pytest.mark.parametrize(("text", "shape"), [("16", [2, 1, 16, 16]), ("16x32", [2, 1, 16, 32])])
def test_batch_and_input_size(tmp_path: Path, text: str, shape: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "conv.toml"
    path.write_text(CARD.replace("tests.models.tiny:digits_net", "tests.models.tiny:any_size"), encoding="utf-8")
    assert main(["profile", str(path), "--no-latency", "--json", "--batch", "2", "--input-size", text]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["inputs"][0]["shape"] == shape


def test_weights_are_loaded_and_refused(card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(digits_net().state_dict(), tmp_path / "w.pt")
    arguments = ["profile", card, "--no-latency", "--weights"]
    assert main([*arguments, str(tmp_path / "w.pt")]) == 0
    capsys.readouterr()
    torch.save(digits_net(hidden=8).state_dict(), tmp_path / "v.pt")
    assert "do not fit" in refused([*arguments, str(tmp_path / "v.pt")], capsys)
    assert "there is no file" in refused([*arguments, str(tmp_path / "absent.pt")], capsys)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["resnet19"], "unknown model 'resnet19'; known: "),
        (["absent.toml"], "cannot read model card absent.toml"),
        (["tests.models.tiny:absent"], "has no factory"),
        (["resnet18", "--input-size", "big"], "--input-size"),
        (["resnet18", "--input-size", "0"], "at least 1 pixel"),
        (["resnet18", "--no-latency", "--weights", "ResNet18_Weights.NONE"], "torchvision has no weights"),
        (["tests.models.tiny:wrong_size", "--no-latency"], "cannot capture"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reason in refused(["profile", *arguments], capsys)


def test_models_lists_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{name} " in text for name in card_names())
    assert main(["models", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in cards] == card_names()
    assert cards[0]["inputs"][0]["shape"] == [3, 224, 224]


def test_latencies_of_an_engine(
    card: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("SPLITINFER_CACHE", str(tmp_path / "cache"))
    arguments = ["profile", card, "--engine", "onnxruntime", "--repeats", "2", "--json"]
    assert main(arguments) == 0  # a half that were left to torch would warn, which fails a test
    profile = json.loads(capsys.readouterr().out)
    assert profile["latency_host"]["engine"] == "onnxruntime"
    assert all(cut["head_latency"]["median_s"] >= 0 for cut in profile["cuts"])
    halves = [path for path in (tmp_path / "cache" / "onnxruntime").glob("*.onnx") if "whole" not in path.name]
    assert len(halves) == 2 * (len(profile["cuts"]) - 1) - 1  # the tail of cut 0 is the head of cut K
