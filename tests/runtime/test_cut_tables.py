"""Two ends that mean different operations by one cut number refuse to work together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from splitinfer.errors import ModelMismatchError
from splitinfer.graph import SplitModel
from splitinfer.graph.macs import _RULES, mac_rule
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer


def _blocks() -> nn.Module:
    """Every cut is crossed by one tensor of the same shape, so that nothing but the fingerprint can tell them apart."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).eval()


def _capture(model: nn.Module | None = None) -> SplitModel:
    return SplitModel.capture(model or _blocks(), (torch.ones(2, 4),), optimize=False, name="blocks")


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> dict[object, object]:
    """The table of MAC rules as it is, to be changed by one end."""
    table = dict(_RULES)
    monkeypatch.setattr("splitinfer.graph.macs._RULES", table)
    return table


def _another_rule(rules: object) -> None:
    mac_rule(torch.ops.aten.tanh)(lambda result, *_: result.numel())


def _other_rules(rules: object) -> None:
    """As many cuts as before, in other places."""
    mac_rule(torch.ops.aten.linear)(lambda result, *_: 0)
    mac_rule(torch.ops.aten.tanh)(lambda result, *_: result.numel())


@pytest.mark.parametrize("change", [_another_rule, _other_rules])
def test_ends_with_other_cut_tables_refuse_each_other(rules: object, change: Callable[[object], None]) -> None:
    edge = _capture()
    change(rules)
    device = _capture()
    assert [cut.position for cut in device.cuts] != [cut.position for cut in edge.cuts]
    assert device.fingerprint != edge.fingerprint
    with EdgeServer([edge]) as server, EdgeClient(server.address, ClientSettings(deadline_s=60)) as client:
        for cut in range(min(edge.num_cuts, device.num_cuts)):
            with pytest.raises(ModelMismatchError, match="another blocks"):
                client.infer(device, cut, torch.ones(2, 4))


def test_other_counts_for_the_same_cuts_are_the_same_model(rules: object) -> None:
    """What matters is which operations a cut number means, not what they are said to cost."""
    usual = _capture()
    mac_rule(torch.ops.aten.linear)(lambda result, inputs, weight, *_: 7 * result.numel())
    counted = _capture()
    assert counted.total_macs != usual.total_macs
    assert [cut.position for cut in counted.cuts] == [cut.position for cut in usual.cuts]
    assert counted.fingerprint == usual.fingerprint


def test_fingerprints_are_the_same_in_another_process() -> None:
    code = "from tests.runtime.test_cut_tables import _capture; print(_capture().fingerprint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == _capture().fingerprint
