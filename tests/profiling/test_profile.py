"""A profile is data: ratios by hand, JSON there and back, and broken files refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitinfer import Profile
from splitinfer.errors import InputError
from splitinfer.profiling import CutRecord, LatencyRecord, TensorRecord


def by_hand() -> Profile:
    image = TensorRecord("x", (1, 10), "float32")
    return Profile(
        model="by hand",
        inputs=(image,),
        parameters=7,
        total_macs=400,
        cuts=(
            CutRecord(0, "input", (1, 10), 0, (image,)),
            CutRecord(
                1,
                "a",
                (1, 8),
                100,
                (TensorRecord("h", (1, 8), "float16"), TensorRecord("mask", (1, 8), "bool")),
                LatencyRecord(0.25, 0.01),
                LatencyRecord(0.75, 0.02),
            ),
            CutRecord(2, "b", (1, 2), 400, ()),
        ),
        uncounted_ops={"relu": 2},
        latency_host={"threads": 1},
    )


def with_a_set_cut() -> Profile:
    return replace(by_hand(), set_cuts=(CutRecord(1000, "{a+b}", (1, 4), 120, (TensorRecord("h", (1, 4), "uint8"),)),))


def test_ratios_by_hand() -> None:
    profile = by_hand()
    assert profile.num_cuts == 2
    assert profile.input_bits == 320
    assert profile.input_elements == 10
    assert profile.compute_ratio.tolist() == [0, 0.25, 1]
    assert profile.feature_ratio.tolist() == [1, (8 * 16 + 8 * 8) / 320, 0]
    assert profile.crossing_elements.tolist() == [10, 16, 0]


def test_json_there_and_back(tmp_path: Path) -> None:
    by_hand().save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json") == by_hand()
    record = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert record["schema_version"] == 1
    for key in ("model", "total_macs", "input_bits", "compute_ratio", "feature_ratio", "cuts", "num_cuts"):
        assert key in record
    assert record["cuts"][1]["crossing_bits"] == 192
    assert "set_cuts" not in record


def test_set_cuts_there_and_back(tmp_path: Path) -> None:
    profile = with_a_set_cut()
    profile.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json") == profile
    assert json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))["set_cuts"][0]["crossing_bits"] == 32
    assert (profile.cut(1), profile.cut(1000)) == (profile.cuts[1], profile.set_cuts[0])
    assert [profile.compute_share(k) for k in (0, 1, 1000)] == [0, 0.25, 0.3]
    assert len(profile.compute_ratio) == len(profile.feature_ratio) == 3


def _drop(key: str) -> Any:
    return lambda record: record.pop(key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_drop("schema_version"), "no schema_version"),
        (lambda r: r.update(schema_version=99), "schema 99; this version reads schema 1"),
        (_drop("total_macs"), "total_macs"),
        (_drop("cuts"), "cuts"),
        (lambda r: r.update(total_macs=401), "from 0 to total_macs"),
        (lambda r: r["cuts"][1].update(macs_before=0), "strictly increase"),
        (lambda r: r["cuts"].pop(), "macs_before must run"),
        (lambda r: r["cuts"][1].update(index=5), "numbered"),
        (lambda r: r["cuts"][2].update(crossing=r["inputs"]), "nothing at k=K"),
        (lambda r: r["cuts"][0].update(crossing=[]), "something must cross"),
        (lambda r: r["inputs"][0].update(dtype="float33"), "float33"),
        (lambda r: r.update(cuts="none"), "not a profile"),
        (lambda r: r["set_cuts"][0].update(index=2), "numbered beyond K"),
        (lambda r: r["set_cuts"][0].update(macs_before=400), "a set cut must have"),
        (lambda r: r["set_cuts"][0].update(crossing=[]), "send something"),
    ],
)
def test_a_broken_profile_is_refused_with_the_reason(tmp_path: Path, change: Any, reason: str) -> None:
    record = json.loads(json.dumps(with_a_set_cut().to_dict()))
    change(record)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(InputError, match=reason):
        Profile.load(path)


def test_files_that_are_no_profiles(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("hello", encoding="utf-8")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(InputError, match="cannot read profile"):
        Profile.load(tmp_path / "absent.json")
    for name in ("text.json", "list.json"):
        with pytest.raises(InputError, match="is not a profile"):
            Profile.load(tmp_path / name)
