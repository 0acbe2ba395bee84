"""A device of a live run from exported heads, in a process that has no torch, numba, cvxpy or scipy."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitinfer.artifacts.export import export
from splitinfer.errors import InputError, ScenarioError
from splitinfer.models import CaptureOptions
from splitinfer.runtime.child import Child
from splitinfer.runtime.loop import LoopSettings
from splitinfer.runtime.loop.exported import exported_services
from splitinfer.runtime.loop.services import ServiceLoader
from splitinfer.runtime.loop.world import DeviceWorld
from splitinfer.simulation.scenario_file import save_scenario
from tests.artifacts.test_export import BLOCK
from tests.runtime.loop.in_process import Edge

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


class Device:
    """A process of ``splitinfer device --heads`` in which nothing of ``ABSENT`` can be imported."""

    def __init__(self, world: Any, address: str, heads: dict[str, Path], folder: Path, *options: str) -> None:
        save_scenario(world, folder / "tiny.toml")
        (folder / "sitecustomize.py").write_text(BLOCK, "utf-8")
        # What the verb imports is looked at when it is through.
        code = (
            "import sys; from splitinfer.cli.main import main; code = main(sys.argv[1:]); "
            f"print('held', [name for name in {ABSENT} if name in sys.modules]); sys.exit(code)"
        )
        arguments = ["device", "--server", address, "--scenario", str(folder / "tiny.toml"), *options]
        for heads_of_model in heads.values():
            arguments += ["--heads", str(heads_of_model)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        said, errors = self._process.communicate(timeout=120)
        return self._process.returncode, said, errors


def test_a_live_run_of_a_device_without_torch(
    tiny: Any, tiny_cards: Any, heads: dict[str, Path], tmp_path: Path
) -> None:
    # The price of time has the longer compiled part; tests/runtime/test_without_torch.py runs the other rule's.
    world = tiny.replace(num_devices=1, fixed_cuts=(2, 1), allocation="price", codecs="float16")
    edge = Edge(world, ServiceLoader(tiny_cards), LoopSettings(slots=30, time_scale=0.2, patience_s=60.0))
    code, said, errors = Device(world, edge.address, heads, tmp_path).ended()
    edge.join(60)
    assert code == 0, errors
    assert edge.failed is None
    assert "held []" in said
    result = edge.record.result(world)
    assert result.checked > 0
    assert result.wrong == 0
    assert f"{result.checked} answers, all checked, 0 wrong" in said


@pytest.mark.parametrize("on_failure", ["fallback", "fail"])
def test_a_device_of_exported_heads_whose_edge_is_killed(
    tiny: Any, tiny_cards: Any, heads: dict[str, Path], tmp_path: Path, on_failure: str
) -> None:
    """The tails were exported with the heads, so it finishes the run alone, whatever crossed; or says it cannot."""
    world = tiny.replace(num_devices=1, arrival_rate_hz=6.0, fixed_cuts=(1, 1), max_local_frequency_hz=3e8)
    save_scenario(world, tmp_path / "edge.toml")
    order = {
        "scenario": str(tmp_path / "edge.toml"),
        "cards": {name: str(file) for name, file in tiny_cards.items()},
        "options": CaptureOptions(threads=1).to_dict(),
        "port": 0,
        "otlp": None,
    }
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    edge = Child("splitinfer.runtime.loop.edge_child", order, "edge", said, threads=1)
    try:
        settings = LoopSettings(slots=150, time_scale=0.2, patience_s=60.0)
        edge.tell(json.dumps({"policy": "fixed", "loop": asdict(settings)}))
        _, event = said.get(timeout=100)
        device = Device(world, event["address"], heads, tmp_path, "--on-failure", on_failure)
        while event is not None and event.get("first_slot", 0) < 50:
            _, event = said.get(timeout=100)
        assert event is not None
    finally:
        edge.kill()
        edge.stop(10)
    code, out, errors = device.ended()
    if on_failure == "fail":
        assert code == 2
        assert "Traceback" not in errors
        assert errors.splitlines()[-1].startswith("splitinfer: error: no edge server answers")
        return
    assert code == 0, errors
    (slot,) = re.findall(r"alone from slot (\d+) on, with \d+ tasks to finish here", out)
    assert 50 <= int(slot) < 150
    (checked, under_way) = re.findall(r"(\d+) answers, all checked, 0 wrong; (\d+) tasks", out)[0]
    arrived = sum(int(DeviceWorld(world, 0, 0).requests(s).sum()) for s in range(settings.slots))
    assert int(checked) + int(under_way) == arrived
    assert "held []" in out


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
