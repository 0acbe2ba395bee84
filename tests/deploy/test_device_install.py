"""What deploy/device.txt lists: an environment without torch, small, whose answers are the whole model's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
LISTED = ROOT / "deploy" / "device.txt"
MAX_BYTES = 150e6


def pins(path: Path) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==([^;\s]+)", path.read_text("utf-8"), flags=re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in lines}


def test_the_versions_are_those_that_everything_is_tested_with() -> None:
    listed, tested = pins(LISTED), pins(ROOT / "constraints.txt")
    assert {"numpy", "grpcio", "pydantic", "pydantic-core", "pillow"} <= set(listed)
    del listed["onnxruntime"]  # an older one, for its size
    assert listed == {name: tested.get(name) for name in listed}


needs_index = pytest.mark.skipif(
    "SPLITINFER_INSTALL_TESTS" not in os.environ,
    reason="installs packages from an index; make release-check runs it (SPLITINFER_INSTALL_TESTS=1)",
)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that docs/engines.md tells a device to make, of this tree."""
    folder = tmp_path_factory.mktemp("device") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-qq"]
    subprocess.run([*pip, "--no-compile", "--no-deps", ROOT, "-r", LISTED], check=True)
    return folder


@needs_index
def test_it_holds_at_most_150_mb(device: Path) -> None:
    size = sum(path.stat().st_size for path in device.rglob("*") if path.is_file() and not path.is_symlink())
    assert size <= MAX_BYTES, f"{size / 1e6:.0f} MB"


@needs_index
def test_a_photo_against_a_real_server(device: Path, tmp_path: Path) -> None:
    from splitinfer.models import load_card
    from splitinfer.models.photos import shipped_photo
    from splitinfer.runtime.loading import capture_card

    def here(*arguments: object) -> list[str]:
        return [sys.executable, "-m", "splitinfer", *map(str, arguments)]

    head, photo = tmp_path / "head", shipped_photo()
    export = here("export", "resnet18", "--cut", "layer2.0.conv1", "--format", "onnx", "--out", head)
    subprocess.run(export, check=True, cwd=ROOT)
    environment = {"PATH": os.environ["PATH"]}
    python = device / "bin" / "python"
    for absent in ("torch", "numba", "cvxpy", "scipy", "rich"):
        done = subprocess.run([python, "-c", f"import {absent}"], env=environment, capture_output=True, check=False)
        assert b"ModuleNotFoundError" in done.stderr
    with subprocess.Popen(
        here("serve", "--models", "resnet18", "--port", "0"), cwd=ROOT, stdout=subprocess.PIPE
    ) as edge:
        assert edge.stdout is not None
        try:
            said = re.search(rb"on (127\.0\.0\.1:\d+)", edge.stdout.readline())
            assert said is not None
            answer = tmp_path / "answer.npz"
            infer = [device / "bin" / "splitinfer", "infer", head, "--input", photo, "--server", said[1].decode()]
            done = subprocess.run(
                [*infer, "--output", answer, "--json"], env=environment, capture_output=True, text=True, check=False
            )
        finally:
            edge.terminate()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes_up"] > 0
    card = load_card("resnet18")
    whole = capture_card(card)(card.preprocess(photo)).numpy()
    np.testing.assert_allclose(np.load(answer)["0/answer"], whole, rtol=0, atol=1e-4 * np.abs(whole).max())
