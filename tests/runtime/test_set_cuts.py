"""Set cuts over the network: the same answers, and no two ends that mean different heads by one number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from splitinfer.errors import ModelMismatchError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.graph.macs import _RULES, mac_rule
from splitinfer.graph.specs import FIRST_SET_CUT
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer, ServerSettings
from splitinfer.runtime.exchange import ModelId
from tests.graph.towers import TWO, Towers

SETTINGS = ClientSettings(deadline_s=60)


def _capture(**options: str) -> SplitModel:
    torch.manual_seed(0)
    return SplitModel.capture(Towers().eval(), TWO, name="towers", **options)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_edge_runs_the_tails_of_set_cuts(batch: int) -> None:
    split = _capture()
    whole = split(*TWO)
    with EdgeServer([split], ServerSettings(batch=batch)) as server, EdgeClient(server.address, SETTINGS) as client:
        if batch > 1:
            server.warm_batches()
        for cut in split.set_cuts:
            for asked in (cut.index, str(cut.index), cut.name):
                result = client.infer(split, asked, *TWO)
                assert (result.cut, result.ran_at) == (cut.index, "edge")
                assert torch.equal(result.output, whole)
        last = split.set_cuts[-1]
        assert all(torch.equal(one.output, whole) for one in client.stream(split, last.index, [TWO] * 5))
        rounded = client.infer(split, last.index, *TWO, codec="float16").output
        torch.testing.assert_close(rounded, whole, rtol=1e-2, atol=1e-2)


def test_an_edge_tells_the_set_cuts_that_it_knows_and_looks_for_none_to_tell() -> None:
    split = _capture()
    asking = _capture()
    with EdgeServer([split]) as server, EdgeClient(server.address, SETTINGS) as client:
        for _ in range(2):
            assert client.describe().models["towers"].set_cuts is None
        assert split.found_set_cuts is None
        last = asking.set_cuts[-1]
        client.infer(asking, last.index, *TWO)
        told = client.describe().models["towers"].set_cuts
        assert told is not None
        assert [(one.index, one.name, one.macs_before) for one in told] == [
            (one.index, one.name, one.macs_before) for one in asking.set_cuts
        ]
        assert [one.fingerprint for one in told] == [asking.fingerprint_at(one.index) for one in told]
        assert [spec.shape for spec in told[-1].crossing] == [spec.shape for spec in last.crossing]
        # What was told is all that a device needs that does not hold the model.
        crossing = asking.run_head(last.index, *TWO)
        client.run_tail(ModelId("towers", told[-1].fingerprint), told[-1].index, crossing)


def test_ends_with_other_counts_refuse_each_other_at_set_cuts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = _capture()
    monkeypatch.setattr("splitinfer.graph.macs._RULES", dict(_RULES))
    # The same cuts 0..K, but one layer seems so dear that it is left to the tail for longer.
    large_2 = (4, 16)
    mac_rule(torch.ops.aten.linear)(
        lambda result, x, weight, *_: (10**6 if tuple(weight.shape) == large_2 else 1) * weight.numel()
    )
    device = _capture()
    assert device.fingerprint == edge.fingerprint
    both = list(zip(device.set_cuts, edge.set_cuts, strict=False))
    same, other = (
        next(one.index for one, two in both if (one.name == two.name) is is_same) for is_same in (True, False)
    )
    with EdgeServer([edge]) as server, EdgeClient(server.address, SETTINGS) as client:
        for k in (1, same):
            assert torch.equal(client.infer(device, k, *TWO).output, edge(*TWO))
        with pytest.raises(ModelMismatchError, match="another towers"):
            client.infer(device, other, *TWO)
        there_is_none = FIRST_SET_CUT + len(edge.set_cuts)
        with pytest.raises(RemoteError, match=f"cut {there_is_none} has no tail"):
            client.run_tail(ModelId("towers", edge.fingerprint), there_is_none, TWO)
        with pytest.raises(ModelMismatchError, match="another towers"):
            client.run_tail(ModelId("towers", edge.fingerprint), FIRST_SET_CUT, TWO)


def test_exported_heads_of_set_cuts_run_without_the_model(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from splitinfer.artifacts.export import export, pareto
    from splitinfer.artifacts.head import ExportedHead

    split = _capture()
    k = split.set_cuts[-1].index
    assert k in pareto(split)
    export(split, k, tmp_path, format="onnx")
    head = ExportedHead(tmp_path)
    assert (head.manifest.cut, head.manifest.layer) == (k, split.set_cuts[-1].name)
    crossing = head(*(tensor.numpy() for tensor in TWO))
    with EdgeServer([split]) as server, EdgeClient(server.address, SETTINGS) as client:
        client.describe()
        answer = client.run_tail(head.model, k, crossing).output[0]
    torch.testing.assert_close(torch.from_numpy(answer), split(*TWO), rtol=1e-4, atol=1e-4)


def test_another_engine_runs_set_cuts_beside_the_cuts() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    split = _capture(engine="onnxruntime")
    whole = _capture()(*TWO)
    for k in (split.set_cuts[-1].index, 2):
        for _ in range(2):  # the first run is torch's, to check the other
            crossing = split.run_head(k, *TWO)
            answers = [split.run_tail(k, *crossing), *(leaves[0] for leaves in split.run_tails(k, [crossing] * 2))]
            for answer in answers:
                torch.testing.assert_close(answer, whole, rtol=1e-4, atol=1e-4)
