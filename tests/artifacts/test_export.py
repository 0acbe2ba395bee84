"""Exported halves: written, checked, and run where torch is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from splitinfer import SplitModel
from splitinfer.artifacts.export import export, pareto
from splitinfer.artifacts.head import ExportedHead
from splitinfer.artifacts.manifest import Manifest, file_checksum
from splitinfer.cli.main import main
from splitinfer.errors import CaptureError, InputError, MissingExtraError
from splitinfer.graph.engines.export import part_module
from splitinfer.models import load_card
from splitinfer.runtime import EdgeServer
from splitinfer.runtime.loading import capture_card

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
CARD = """
source = "tests.runtime.small:plain"
labels = ["zero", "one", "two"]
[[inputs]]
shape = [3, 32, 32]
[preprocessing]
resize = 32
"""
BLOCK = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "numba", "cvxpy", "scipy"):
            raise ModuleNotFoundError(f"no module named {name!r} here", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    (folder / "plain.toml").write_text(CARD, "utf-8")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / "photo.png")
    assert main(["export", str(folder / "plain.toml"), "--cut", "1", "--out", str(folder / "out")]) == 0
    return folder


def test_the_manifest_says_what_the_files_are(folder):
    card = load_card(folder / "plain.toml")
    split = capture_card(card)
    manifest = Manifest.load(folder / "out")
    assert (manifest.model, manifest.fingerprint, manifest.cut) == ("plain", split.fingerprint, 1)
    assert [tuple(t.shape) for t in manifest.crossing] == [tuple(t.shape) for t in split.cuts[1].crossing]
    assert manifest.labels == ("zero", "one", "two")
    assert manifest.preprocessing == card.preprocessing
    head = ExportedHead(folder / "out")
    array = head.preprocess(folder / "photo.png")
    torch.testing.assert_close(torch.from_numpy(array), card.preprocess(folder / "photo.png"), rtol=0, atol=0)
    for mine, theirs in zip(head(array), split.run_head(1, torch.from_numpy(array)), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_a_device_without_torch_answers_as_the_whole_model(folder, tmp_path):
    """A process in which torch, numba and cvxpy cannot be imported, against a real server."""
    split = capture_card(load_card(folder / "plain.toml"))
    (tmp_path / "sitecustomize.py").write_text(BLOCK, "utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with EdgeServer([split]) as edge:
        command = [
            sys.executable,
            "-m",
            "splitinfer",
            "infer",
            str(folder / "out"),
            "--input",
            str(folder / "photo.png"),
        ]
        done = subprocess.run(
            [*command, "--server", edge.address, "--json", "--output", str(tmp_path / "answer.npz")],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["bytes_up"] > 0
    answer = np.load(tmp_path / "answer.npz")["0/answer"]
    whole = split(load_card(folder / "plain.toml").preprocess(folder / "photo.png")).numpy()
    np.testing.assert_allclose(answer, whole, rtol=1e-4, atol=1e-5)


def test_import_needs_no_torch(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK, "utf-8")
    code = "import splitinfer, splitinfer.runtime.client, splitinfer.artifacts.head, splitinfer.cli.main; print('ok')"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


def damage(folder, tmp_path, change):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder / "out", copy)
    change(copy)
    return copy


def rewrite(field, value):
    def change(copy):
        record = json.loads((copy / "manifest.json").read_text("utf-8"))
        record[field] = value
        (copy / "manifest.json").write_text(json.dumps(record), "utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda copy: (copy / "manifest.json").unlink(), "there is no manifest.json"),
        (lambda copy: (copy / "head.onnx").unlink(), "cannot read"),
        (lambda copy: (copy / "head.onnx").write_bytes(b"no onnx"), "head.onnx is damaged"),
        (rewrite("head", "../head.onnx"), "is not a file of the folder"),
        (rewrite("format", "pt2"), "a pt2 head runs only where torch is"),
        (rewrite("format", "zip"), "format: must be 'onnx', 'pt2' or 'executorch', not 'zip'"),
        (rewrite("cut", "one"), "cut: must be a valid integer"),
        (rewrite("cut", -1), "there is no cut -1"),
        (rewrite("cut", 0), "cut 0 of 3 takes no head"),
        (rewrite("head", None), "cut 1 of 3 needs a head"),
        (rewrite("tail", None), "cut 1 of 3 needs a tail"),
        (rewrite("cut", 3), "cut 3 of 3 takes no tail"),
        (rewrite("crossing", []), "cut 1 of 3 needs a tensor that crosses"),
        (lambda copy: (copy / "manifest.json").write_text("{", "utf-8"), "manifest.json: Invalid JSON"),
    ],
)
def test_damaged_and_foreign_artifacts_are_one_line(folder, tmp_path, change, says):
    with pytest.raises(InputError, match=r"^artifact") as caught:
        ExportedHead(damage(folder, tmp_path, change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_no_model(tmp_path, capsys):
    for broken in (tmp_path, tmp_path / "folder"):
        (tmp_path / "folder" / "manifest.json").mkdir(parents=True, exist_ok=True)
        assert main(["infer", f"{broken}/", "--input", "photo.png", "--server", "127.0.0.1:1"]) == 2
        assert "manifest.json" in capsys.readouterr().err


def test_an_onnx_file_that_is_not_ours(folder, tmp_path):
    def change(copy):
        (copy / "head.onnx").write_bytes(b"\x08\x07rubbish")
        rewrite("checksums", {"head.onnx": file_checksum(copy / "head.onnx"), **_tail(copy)})(copy)

    with pytest.raises(InputError, match=r"head.onnx cannot be run"):
        ExportedHead(damage(folder, tmp_path, change))


def test_an_onnx_file_reads_no_other_file_of_this_machine(folder, tmp_path, monkeypatch):
    """A weight kept outside of the file would be read from wherever the file says."""
    import onnx
    from onnx.external_data_helper import set_external_data

    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"s" * 12)
    monkeypatch.chdir(tmp_path)

    def change(copy):
        for where in (str(secret), "../secret.bin", "beside.bin", "secret.bin"):
            (copy / "beside.bin").write_bytes(b"s" * 12)
            weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3], raw_data=b"s" * 12)
            set_external_data(weight, where)
            weight.ClearField("raw_data")
            make = onnx.helper
            float_ = onnx.TensorProto.FLOAT
            graph = make.make_graph(
                [make.make_node("Identity", ["w"], ["out"])],
                "g",
                [make.make_tensor_value_info("x", float_, [1, 3, 32, 32])],
                [make.make_tensor_value_info("out", float_, [3])],
                [weight],
            )
            model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
            (copy / "head.onnx").write_bytes(model.SerializeToString())
            rewrite("checksums", {"head.onnx": file_checksum(copy / "head.onnx"), **_tail(copy)})(copy)
            with pytest.raises(InputError, match=r"head.onnx cannot be run"):
                ExportedHead(copy)

    damage(folder, tmp_path, change)


def test_a_sound_onnx_file_that_is_not_ours(folder, tmp_path):
    """The tail in the head's place, with the right checksum: it takes and gives other tensors."""

    def change(copy):
        (copy / "head.onnx").write_bytes((copy / "tail.onnx").read_bytes())
        rewrite("checksums", {"head.onnx": file_checksum(copy / "head.onnx"), **_tail(copy)})(copy)

    head = ExportedHead(damage(folder, tmp_path, change))
    with pytest.raises(InputError, match=r"artifact .*head.onnx (cannot be run|gives other tensors)") as caught:
        head(np.zeros((1, 3, 32, 32), np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_file_that_answers_otherwise_than_torch_is_not_kept(folder, tmp_path, format, monkeypatch):
    split = capture_card(load_card(folder / "plain.toml"))

    def off(order, weights, arguments, results):
        return part_module(order, {name: w * 1.001 for name, w in weights.items()}, arguments, results)

    monkeypatch.setattr("splitinfer.artifacts.export.part_module", off)
    with pytest.raises(
        CaptureError, match=r"the head of plain at cut 2 .* is more than 1e-04 of its largest value off"
    ):
        export(split, 2, tmp_path / "out", format=format)
    assert not list((tmp_path / "out").iterdir())


def test_several_cuts_have_a_folder_each(folder, tmp_path, capsys):
    card, out = str(folder / "plain.toml"), str(tmp_path / "out")
    assert main(["export", card, "--cut", "1", "--cut", "2", "--out", out]) == 0
    assert [Manifest.load(tmp_path / "out" / str(k)).cut for k in (1, 2)] == [1, 2]
    assert main(["export", card, "--cuts", "pareto", "--out", str(tmp_path / "pareto")]) == 0
    split = capture_card(load_card(card))
    cuts = {int(entry.name) for entry in (tmp_path / "pareto").iterdir()}
    assert cuts == set(pareto(split))
    assert main(["export", card, "--cut", "1", "--out", out]) == 2
    assert " holds an export; --overwrite replaces it" in capsys.readouterr().err
    assert main(["export", card, "--cut", "1", "--cut", "2", "--out", out, "--overwrite"]) == 0
    for wrong in ([], ["--cuts", "all"], ["--cut", "1", "--cuts", "pareto"]):
        assert main(["export", card, *wrong, "--out", out]) == 2
        assert "give --cut CUT, once or more, or --cuts pareto" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # ExecuTorch uses what torch and importlib deprecate
def test_executorch_where_it_is_installed(folder, tmp_path):
    pytest.importorskip("executorch", reason="the extra [executorch] is not installed; seen with 1.5.1, torch 2.13")
    split = capture_card(load_card(folder / "plain.toml"))
    manifest = export(split, 1, tmp_path / "pte", format="executorch")  # runs both files beside torch
    assert (manifest.head, manifest.tail) == ("head.pte", "tail.pte")


def _tail(copy):
    return {"tail.onnx": json.loads((copy / "manifest.json").read_text("utf-8"))["checksums"]["tail.onnx"]}


def test_weights_of_another_model_are_refused_by_the_edge(folder, tmp_path, capsys):
    split = SplitModel.capture(
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), (torch.zeros(1, 3, 32, 32),), name="plain"
    )
    with EdgeServer([split]) as edge:
        arguments = ["infer", str(folder / "out"), "--input", str(folder / "photo.png"), "--server", edge.address]
        assert main(arguments) == 2
    assert "plain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--server: an exported head needs an edge"),
        (["--server", "127.0.0.1:1", "--check"], "--check: an exported head has no whole model here"),
        (["--server", "127.0.0.1:1", "--cut", "2"], "--cut: an exported head"),
    ],
)
def test_options_that_make_no_sense(folder, arguments, says, capsys):
    assert main(["infer", str(folder / "out"), "--input", str(folder / "photo.png"), *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("on_failure", ["fail", "fallback"])
def test_an_exported_head_without_its_edge(folder, on_failure, capsys):
    arguments = ["infer", str(folder / "out"), "--input", str(folder / "photo.png"), "--server", "127.0.0.1:1"]
    assert main([*arguments, "--on-failure", on_failure, "--json"]) == (2 if on_failure == "fail" else 0)
    if on_failure == "fallback":
        report = json.loads(capsys.readouterr().out)
        assert report["ran_at"] == {"edge": 0, "device": 1}
        assert "127.0.0.1:1" in report["failure"]
        assert report["answer"]


def test_every_cut_and_the_other_formats(folder, tmp_path):
    split = capture_card(load_card(folder / "plain.toml"))
    for k in (0, split.num_cuts):
        manifest = export(split, k, tmp_path / str(k), format="onnx")
        assert (manifest.head is None) == (k == 0)
        assert (manifest.tail is None) == (k == split.num_cuts)
    manifest = export(split, 1, tmp_path / "pt2", format="pt2")
    program = torch.export.load(tmp_path / "pt2" / str(manifest.head))
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(program.module()(x)[0], split.run_head(1, x)[0])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("", "utf-8")
    with pytest.raises(InputError, match="holds other files"):
        export(split, 1, tmp_path / "mine", format="onnx")
    with pytest.raises(InputError, match="format: must be one of onnx, pt2, executorch"):
        export(split, 1, tmp_path / "zip", format="zip")
    try:
        import executorch  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"splitinfer\[executorch\]"):
            export(split, 1, tmp_path / "pte", format="executorch")
