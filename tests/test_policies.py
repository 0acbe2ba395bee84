"""Policies by name, for simulations and live runs alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitinfer.errors import InputError
from splitinfer.policies import named_policy
from splitinfer.scheduling import FixedCut, MyopicCut
from splitinfer.simulation import Scenario


def test_names_and_folders_lead_to_policies(tmp_path: Path) -> None:
    busy = Scenario.preset("busy")
    assert isinstance(named_policy("myopic", busy), MyopicCut)
    assert isinstance(named_policy("fixed:0,53", busy), FixedCut)
    with pytest.raises(InputError, match="no 'nosuch'"):
        named_policy("nosuch", busy)
    with pytest.raises(InputError, match="no training run"):
        named_policy(str(tmp_path), busy)
    with pytest.raises(InputError, match="no training run"):
        named_policy(f"lyappo:{tmp_path}", busy)
