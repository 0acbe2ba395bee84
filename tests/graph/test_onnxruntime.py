"""The engine onnxruntime: as torch to 1e-4, each weight once, kept on disk, torch where it cannot."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from splitinfer import SplitModel
from splitinfer.errors import InputError, MissingExtraError
from splitinfer.graph.engines import ENGINES, find_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from splitinfer.graph.engines.checked import EngineWarning


class Net(nn.Module):
    """Branches, a skip over the cut, two outputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(8), nn.Linear(8, 64)

    def forward(self, x):
        h = self.a(x).relu()
        g = self.norm(self.b(h)).relu() + h
        return {"scores": self.out(g.mean((2, 3))), "best": g.flatten(1).argmax(1)}


def captured(engine="onnxruntime"):
    torch.manual_seed(0)
    return SplitModel.capture(Net().eval(), (torch.randn(1, 3, 16, 16),), engine=engine)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What a first start leaves for the next."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLITINFER_CACHE", str(folder))
        split = captured()
        split.run_tail(1, *split.run_head(1, torch.zeros(1, 3, 16, 16)))
    assert list((folder / "onnxruntime").glob("*-whole.onnx"))
    return folder


@pytest.fixture(autouse=True)
def own_cache(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITINFER_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(exported, tmp_path / "cache"))


@pytest.fixture
def pair():
    return [captured("torch"), captured()]


def test_every_cut_is_torchs_to_the_tolerance(pair):
    exact, fast = pair
    assert (fast.engine, fast.tolerance) == ("onnxruntime", 1e-4)
    assert fast.fingerprint == exact.fingerprint, "each end chooses its own engine"
    for seed in range(3):
        x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        for k in range(fast.num_cuts + 1):
            with warnings.catch_warnings():
                warnings.simplefilter("error", EngineWarning)
                head = fast.run_head(k, x)
                for mine, theirs in zip(head, exact.run_head(k, x), strict=True):
                    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
                if k == fast.num_cuts:
                    continue
                answer = fast.run_tail(k, *head)
            expected = exact(x)
            torch.testing.assert_close(answer["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
            assert torch.equal(answer["best"], expected["best"])


class Wide(nn.Module):
    """38 MB of weights in what CNNs are made of."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(512, 512, 3, padding=1) for _ in range(4)))
        self.out = nn.Linear(512, 100)

    def forward(self, x):
        return self.out(self.layers(x).mean((2, 3)))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not say what is resident")
def test_all_cuts_hold_each_weight_once(own_cache):
    earlier = set((own_cache / "onnxruntime").iterdir())
    torch.manual_seed(0)
    model, x = Wide().eval(), torch.randn(1, 512, 4, 4)
    weights_bytes = sum(p.nbytes for p in model.parameters())
    added = []
    for _ in range(2):  # the second start exports nothing
        fast = SplitModel.capture(model, (x,), engine="onnxruntime")
        before = resident_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", EngineWarning)
            for k in range(1, fast.num_cuts):
                fast.run_tail(k, *fast.run_head(k, x))
        added.append(resident_bytes() - before)
    assert added[1] <= 1.5 * weights_bytes
    files = set((own_cache / "onnxruntime").iterdir()) - earlier
    assert sum(p.stat().st_size for p in files if p.suffix == ".npy") <= 1.05 * weights_bytes
    halves = [p for p in files if p.suffix == ".onnx" and not p.stem.endswith("-whole")]
    assert len(halves) == 2 * (fast.num_cuts - 1)
    assert sum(p.stat().st_size for p in halves) < 0.01 * weights_bytes


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_matrices_beyond_what_may_be_packed_are_read_as_they_are(pair, monkeypatch, room):
    import onnxruntime

    exact, fast = pair
    monkeypatch.setattr(fast._engine, "_pack_bytes", room)
    packs, add = [], onnxruntime.SessionOptions.add_session_config_entry

    def seen(options, key, value):
        packs.append(key != "session.disable_prepacking")
        add(options, key, value)

    monkeypatch.setattr(onnxruntime.SessionOptions, "add_session_config_entry", seen)
    x = torch.randn(1, 3, 16, 16)
    answer = fast.run_tail(1, *exact.run_head(1, x))  # the matrix is in the tail
    torch.testing.assert_close(answer, exact(x), rtol=1e-4, atol=1e-5)
    assert all(packs) == bool(room)


def test_a_second_start_exports_nothing(pair, monkeypatch):
    exact, fast = pair
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: pytest.fail("exported again"))
    x = torch.randn(1, 3, 16, 16)
    for k in (1, 2):  # 2 is out of the same export
        with warnings.catch_warnings():
            warnings.simplefilter("error", EngineWarning)
            answer = fast.run_tail(k, *fast.run_head(k, x))
        torch.testing.assert_close(answer, exact(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["*.npy", "*.onnx"])
def test_damaged_files_are_made_anew(pair, own_cache, which):
    exact, fast = pair
    for path in (own_cache / "onnxruntime").glob(which):
        path.write_bytes(path.read_bytes()[:100])
    x = torch.randn(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        answer = fast.run_tail(1, *fast.run_head(1, x))
    torch.testing.assert_close(answer, exact(x), rtol=1e-4, atol=1e-5)


def test_other_numbers_in_a_file_are_found_and_left_to_torch(pair, own_cache):
    exact, fast = pair
    for path in (own_cache / "onnxruntime").glob("*.npy"):
        np.save(path, 2 * np.load(path))
    x = torch.randn(1, 3, 16, 16)
    with pytest.warns(EngineWarning, match=r"leaves .* operations up to .* to torch: its answer is .* off"):
        head = fast.run_head(2, x)
    assert torch.equal(head[0], exact.run_head(2, x)[0])


def test_a_cache_that_cannot_be_written_is_left_to_torch_with_a_warning(pair, tmp_path, monkeypatch):
    exact, fast = pair
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("SPLITINFER_CACHE", str(tmp_path / "file"))
    x = torch.randn(1, 3, 16, 16)
    with pytest.warns(EngineWarning, match="set SPLITINFER_CACHE to a folder"):
        head = fast.run_head(1, x)
    assert torch.equal(head[0], exact.run_head(1, x)[0])


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(9, 4)

    def forward(self, x):
        return self.out(torch.fft.rfft(x).abs())


def test_what_cannot_be_exported_or_is_off_runs_on_torch():
    torch.manual_seed(1)
    model = Complex().eval()
    example = (torch.randn(1, 16),)
    fast = SplitModel.capture(model, example, engine="onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        answer = fast(*example)
    torch.testing.assert_close(answer, model(*example), rtol=1e-4, atol=1e-5)


def test_engines_that_are_absent_are_one_line(monkeypatch):
    with pytest.raises(InputError, match="engine: no 'tvm'; there are torch, onnxruntime, executorch"):
        find_engine("tvm")
    monkeypatch.setitem(ENGINES, "onnxruntime", "tests.graph.absent_engine:Engine")
    with pytest.raises(MissingExtraError, match=r"pip install 'splitinfer\[onnx\]'"):
        find_engine("onnxruntime")


def test_kept_halves_that_others_could_have_written_are_not_believed(own_cache):
    kept = own_cache / "onnxruntime"
    for file in kept.iterdir():
        file.write_bytes(b"another's")
        file.chmod(0o666)
    kept.chmod(0o777)
    split = captured()
    split.run_tail(1, *split.run_head(1, torch.zeros(1, 3, 16, 16)))
    assert kept.stat().st_mode & 0o077 == 0
    for file in kept.iterdir():
        assert file.read_bytes() != b"another's" or file.stat().st_mode & 0o022, file
    written = [file for file in kept.iterdir() if file.read_bytes() != b"another's"]
    assert {file.stat().st_mode & 0o777 for file in written} == {0o600}
    assert any(file.name.endswith("-whole.onnx") for file in written)
