"""A device of a live run from exported heads, in a process that has no torch, numba, cvxpy or scipy."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitinfer.artifacts.export import export
from splitinfer.errors import InputError, ScenarioError
from splitinfer.runtime.loop import LoopSettings
from splitinfer.runtime.loop.exported import exported_services
from splitinfer.runtime.loop.services import ServiceLoader
from splitinfer.simulation.scenario_file import save_scenario
from tests.artifacts.test_export import BLOCK
from tests.runtime.loop.test_leases import Edge

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[3]
ABSENT = "torch", "numba", "cvxpy", "scipy"


@pytest.fixture(scope="module")
def heads(tiny: Any, tiny_cards: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Cuts 1 and 2 of both models, each model in a folder of its own."""
    where = tmp_path_factory.mktemp("heads")
    for split in ServiceLoader(tiny_cards).models(tiny):
        for k in (1, 2):
            export(split, k, where / split.name / str(k), format="onnx")
    return {folder.name: folder for folder in where.iterdir()}


def test_a_live_run_of_a_device_without_torch(
    tiny: Any, tiny_cards: Any, heads: dict[str, Path], tmp_path: Path
) -> None:
    # The price of time has the longer compiled part; tests/runtime/test_without_torch.py runs the other rule's.
    world = tiny.replace(num_devices=1, fixed_cuts=(2, 1), allocation="price", codecs="float16")
    save_scenario(world, tmp_path / "tiny.toml")
    (tmp_path / "sitecustomize.py").write_text(BLOCK, "utf-8")
    # What the verb imports is looked at when it is through.
    code = (
        "import sys; from splitinfer.cli.main import main; code = main(sys.argv[1:]); "
        f"print('held', [name for name in {ABSENT} if name in sys.modules]); sys.exit(code)"
    )
    edge = Edge(world, ServiceLoader(tiny_cards), LoopSettings(slots=30, time_scale=0.2, patience_s=60.0))
    arguments = ["device", "--server", edge.address, "--scenario", str(tmp_path / "tiny.toml")]
    for folder in heads.values():
        arguments += ["--heads", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    edge.join(60)
    assert done.returncode == 0, done.stderr
    assert edge.failed is None
    assert "held []" in done.stdout
    result = edge.record.result(world)
    assert result.checked > 0
    assert result.wrong == 0
    assert f"{result.checked} answers, all checked, 0 wrong" in done.stdout


def test_the_whole_model_and_cut_0_need_no_files_of_their_own(
    tiny: Any, tiny_cards: Any, heads: dict[str, Path]
) -> None:
    services = exported_services(tiny, 0, list(heads.values()))
    for mine, split in zip(services, ServiceLoader(tiny_cards).models(tiny), strict=True):
        tensors = mine.run_head(0, 0)
        for cut in (0, 1, 2, mine.last):
            made = mine.run_head(cut, 0)
            assert mine.is_right(cut, 0, made if cut == mine.last else mine.run_tail(cut, made))
        whole = mine.run_head(mine.last, 0)
        assert mine.last == split.num_cuts
        assert not mine.is_right(1, 0, [leaf + np.float32(1e-2) * np.abs(leaf).max() for leaf in whole])
        assert not mine.is_right(1, 1, whole)
        assert len(tensors) == len(split.inputs)
    (fewer, _) = exported_services(tiny, 0, [heads["plain"] / "1", heads["branchy"]])
    with pytest.raises(InputError, match=r"the edge chose cut 2 of plain, which was not exported; there are 0, 1, 3"):
        fewer.run_head(2, 0)


def test_heads_that_do_not_fit_the_scenario(tiny: Any, tiny_cards: Any, heads: dict[str, Path], tmp_path: Path) -> None:
    plain, branchy = heads["plain"], heads["branchy"]
    for folders, says in (
        ([plain], "no folder for branchy"),
        ([plain, plain], "holds plain once more"),
        ([plain, tmp_path], "there is no manifest.json"),
        ([plain / "1", branchy / "2", tmp_path / "none"], "there is no manifest.json"),
    ):
        with pytest.raises(InputError, match=says):
            exported_services(tiny, 0, folders)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "1").symlink_to(plain / "1")
    (tmp_path / "mixed" / "2").symlink_to(branchy / "2")
    with pytest.raises(InputError, match="belongs to other weights"):
        exported_services(tiny, 0, [tmp_path / "mixed"])
    other = replace(tiny.profiles[0][1], model="plain")
    with pytest.raises(ScenarioError, match="the profile of plain has"):
        exported_services(tiny.replace(services=(other,)), 0, [plain])
