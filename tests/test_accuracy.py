"""The short form of ``python -m benchmarks.accuracy``: a trained network whose every cut is sent in few bits."""

from __future__ import annotations

from benchmarks.accuracy import digits_task, measure
from splitinfer.wire.codecs import codecs_named


def test_digits_survive_eight_and_four_bits_at_every_cut_and_less_than_one_after_a_relu():
    base, rows = measure(digits_task("digits"), codecs_named(["raw", "int8", "int4", "ternary+ans"]))
    assert base > 0.97
    tensors = [row for row in rows if row.codec in ("raw", "int8", "int4")]
    assert {row.cut for row in tensors} == {0, 1, 2, 3}
    for row in tensors:
        points = 100 * row.lost
        assert points <= {"raw": 0.0, "int8": 0.3, "int4": 1.0}[row.codec], row
        assert row.bits / row.values < {"raw": 32.1, "int8": 9.5, "int4": 5.5}[row.codec], row
    after_relu = [row for row in rows if row.codec == "ternary+ans" and row.zeros is not None]
    assert any(row.bits / row.values <= 0.8 and row.lost <= 0.01 for row in after_relu), after_relu
