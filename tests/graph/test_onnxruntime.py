"""The engine onnxruntime: as torch to 1e-4, each weight once, kept on disk, torch where it cannot."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from splitinfer import SplitModel
from splitinfer.errors import InputError, MissingExtraError
from splitinfer.graph.engines import ENGINES, find_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from splitinfer.graph.engines.onnxruntime_engine import EngineWarning


class Net(nn.Module):
    """Branches, a skip over the cut, two outputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        h = self.a(x).relu()
        g = self.norm(self.b(h)).relu() + h
        return {"scores": self.out(g.mean((2, 3))), "best": g.flatten(1).argmax(1)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLITINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pair():
    torch.manual_seed(0)
    model = Net().eval()
    example = (torch.randn(1, 3, 16, 16),)
    return [SplitModel.capture(model, example, engine=engine) for engine in ("torch", "onnxruntime")]


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


def test_each_weight_is_held_by_one_part(pair, own_cache):
    import onnx

    _, fast = pair
    x = torch.randn(1, 3, 16, 16)
    for k in range(fast.num_cuts):
        fast.run_tail(k, *fast.run_head(k, x))
    for k in range(fast.num_cuts):  # the parts are final now
        fast.run_tail(k, *fast.run_head(k, x))
    parts = fast._parts
    live = sum(
        len(part._session[0].get_inputs()) > 0 for part in parts._compiled.values() if getattr(part, "_session", None)
    )
    assert live <= fast.num_cuts + 1
    kept = sorted((own_cache / "onnxruntime").glob("*.onnx"), key=lambda path: path.stat().st_size)
    sizes = [sum(len(weight.raw_data) for weight in onnx.load(path).graph.initializer) for path in kept]
    assert max(sizes) <= 1.2 * 4 * fast.num_parameters + 4096


def test_a_second_start_finds_its_files(pair, own_cache, monkeypatch):
    _, fast = pair
    x = torch.randn(1, 3, 16, 16)
    first = fast.run_tail(1, *fast.run_head(1, x))
    assert list((own_cache / "onnxruntime").glob("*.onnx"))
    torch.manual_seed(0)
    again = SplitModel.capture(Net().eval(), (x,), engine="onnxruntime")
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: pytest.fail("exported again"))
    second = again.run_tail(1, *again.run_head(1, x))
    assert torch.equal(first["scores"], second["scores"])


def test_a_damaged_file_is_left_to_torch_with_a_warning(pair, own_cache):
    exact, fast = pair
    x = torch.randn(1, 3, 16, 16)
    fast.run_head(1, x)
    for path in (own_cache / "onnxruntime").glob("*.onnx"):
        path.write_bytes(path.read_bytes()[:100])
    torch.manual_seed(0)
    again = SplitModel.capture(Net().eval(), (x,), engine="onnxruntime")
    with pytest.warns(EngineWarning, match="leaves .* operations up to .* to torch: "):
        head = again.run_head(1, x)
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
    with pytest.raises(InputError, match="engine: no 'tvm'; there are torch, onnxruntime"):
        find_engine("tvm")
    monkeypatch.setitem(ENGINES, "onnxruntime", "tests.graph.absent_engine:Engine")
    with pytest.raises(MissingExtraError, match=r"pip install 'splitinfer\[onnx\]'"):
        find_engine("onnxruntime")
