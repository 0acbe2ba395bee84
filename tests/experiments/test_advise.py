"""Advice against the sums worked out by hand, and the words that go with it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from splitinfer.cli.main import main
from splitinfer.energy.card import load_device
from splitinfer.errors import InputError
from splitinfer.experiments.advise import (
    BYTE_S,
    CALL_S,
    EDGE_CORE_HZ,
    FILE_CYCLES_PER_PIXEL,
    advise,
    edge_speed,
    options_of,
    parse_rate_bps,
    parse_time_s,
)
from splitinfer.profiling.profile import CodecRecord, LatencyRecord, TensorRecord, WeightsRecord
from splitinfer.runtime import EdgeServer
from splitinfer.runtime.loading import capture_card
from splitinfer.simulation.services import profile_of
from tests.simulation.small import BIG

PAPER = load_device("paper")
LINK = {"bandwidth_bps": 1e6, "rtt_s": 0.01, "edge_macs_per_s": 1e11}


def test_set_cuts_are_ranked_beside_the_others():
    profile = profile_of("shufflenet_v2_x1_0")
    phone = load_device("pixel6:wifi")
    link = {"bandwidth_bps": 8e8, "rtt_s": 1e-3, "edge_macs_per_s": 1.6e11, "files": False}
    advice, without = advise(profile, phone, **link), advise(replace(profile, set_cuts=()), phone, **link)
    best = advice.options[0]
    assert (best.cut, best.layer) == (profile.set_cuts[0].index, profile.set_cuts[0].name)
    assert best.total_s < without.options[0].total_s
    assert [one for one in advice.options if one.cut <= profile.num_cuts] == list(without.options)
    assert f"better than the best cut of the model's own order, {without.options[0].layer}" in advice.words


def test_times_and_energies_are_the_sums_worked_out_by_hand():
    options = {(one.cut, one.codec): one for one in options_of(BIG, PAPER, **LINK)}
    raw = options[2, "raw"]
    assert raw.head_s == pytest.approx(0.9e9 * 0.12 / 1.5e9)
    assert raw.wire_s == pytest.approx(8000 * 32 / 1e6 + 0.01 + CALL_S + 8000 * 4 * BYTE_S)
    assert (raw.encode_s, raw.decode_s) == (0.0, 0.0)
    assert raw.tail_s == pytest.approx(0.1e9 / 1e11)
    assert raw.energy_j == pytest.approx(raw.head_s * 1e-28 * 1.5e9**3 + 8000 * 32 / 1e6 * 0.3)
    assert (raw.limit, raw.same_top) == ("link", 1.0)
    coded = options[2, "int8"]
    assert (coded.bits, coded.encode_s, coded.decode_s) == (8000 * 8, 8000 * 7 / 1.5e9, 8000 * 2 / EDGE_CORE_HZ)
    assert coded.total_s == pytest.approx(raw.head_s + coded.encode_s + coded.wire_s + coded.decode_s + raw.tail_s)
    local = options[3, ""]
    assert (local.wire_s, local.tail_s, local.bits) == (0.0, 0.0, 0.0)


def test_the_way_back_of_the_answer_counts_where_a_downlink_is_given():
    model = replace(BIG, outputs=(TensorRecord("y", (500,), "float32"),))
    without = options_of(model, PAPER, **LINK)
    counted = options_of(model, PAPER, **LINK, downlink_bps=2e6)
    for one, other in zip(without, counted, strict=True):
        assert other.wire_s - one.wire_s == pytest.approx(0 if one.cut == model.num_cuts else 16000 / 2e6)
        assert (other.energy_j, other.bits) == (one.energy_j, one.bits)
    with pytest.raises(InputError, match="has no outputs"):
        options_of(BIG, PAPER, **LINK, downlink_bps=2e6)


def test_the_memory_of_a_head_is_that_of_the_weights_it_holds():
    heavy = replace(BIG, cuts=tuple(replace(cut, head_weights=WeightsRecord(0, 8000 * cut.index)) for cut in BIG.cuts))
    memory = {one.cut: one.memory_bytes for one in options_of(heavy, PAPER, **LINK)}
    assert memory[2] == 2000 + (BIG.input_bits + BIG.cuts[2].crossing_bits) / 8


def test_heads_and_tails_share_the_time_that_was_measured_rather_than_macs():
    timed = tuple(
        replace(cut, head_latency=LatencyRecord(0.03, 0.0), tail_latency=LatencyRecord(0.01, 0.0))
        if cut.index == 2
        else cut
        for cut in BIG.cuts
    )
    by_cut = {one.cut: one for one in options_of(replace(BIG, cuts=timed), PAPER, **LINK)}
    assert by_cut[2].head_s == pytest.approx(0.75 * 1e9 * 0.12 / 1.5e9)
    assert by_cut[2].tail_s == pytest.approx(0.25 * 1e9 / 1e11)
    assert by_cut[1].head_s == pytest.approx(BIG.cuts[1].macs_before * 0.12 / 1.5e9)


CALIBRATED = """\
engine = "torch"
max_local_frequency_hz = 2e9
cycles_per_mac = 0.3

[[measured]]
model = "big"
threads = 1
macs = 1_000_000_000
median_s = 0.1
cycles_per_mac = 0.2

[[measured]]
model = "other"
threads = 1
macs = 1_000_000
median_s = 0.0002
cycles_per_mac = 0.4
"""


def test_what_was_calibrated_on_device_and_edge_is_taken_together(tmp_path):
    device, edge = tmp_path / "device.toml", tmp_path / "edge.toml"
    device.write_text(CALIBRATED, "utf-8")
    edge.write_text(CALIBRATED.replace("0.1", "0.05").replace("2e9", "4e9"), "utf-8")
    card, speed = load_device(str(device)), edge_speed(str(edge), "big")
    assert (speed.macs_per_s, speed.core_hz) == (2e10, 4e9)
    assert edge_speed(str(edge), "never timed").macs_per_s == pytest.approx((2e10 + 5e9) / 2)
    link = LINK | {"edge_macs_per_s": speed.macs_per_s, "edge_core_hz": speed.core_hz}
    found = {(one.cut, one.codec): one for one in options_of(BIG, card, **link)}
    assert found[3, ""].head_s == pytest.approx(0.1)  # the model's own time, not the middle of all
    assert found[0, "raw"].tail_s == pytest.approx(0.05)
    assert found[0, "int8"].decode_s == pytest.approx(40_000 * 2 / 4e9)
    for wrong, says in (("fast", "GMACs/s"), ("0", "GMACs/s"), (str(tmp_path / "no.toml"), "cannot read")):
        with pytest.raises(InputError, match=says):
            edge_speed(wrong, "big")
    edge.write_text('name = "a scenario"', "utf-8")
    with pytest.raises(InputError, match="is not what 'splitinfer calibrate"):
        edge_speed(str(edge), "big")
    edge.write_text(CALIBRATED.replace("0.1", "-1"), "utf-8")
    with pytest.raises(InputError, match=r"measured\[0\].median_s must be a number above 0 .* not -1"):
        edge_speed(str(edge), "big")


def best(objective="latency", **changes):
    return advise(BIG, PAPER, objective=objective, **LINK | changes).options[0]


def test_the_best_is_the_least_of_its_kind_and_moves_with_the_link():
    assert best().cut == 3
    assert best(bandwidth_bps=1e9).cut == 0
    advice = advise(BIG, PAPER, **LINK)
    rates = [rate for rate, _ in advice.changes]
    assert rates == sorted(rates)
    assert advice.changes[-1][1] == 0
    for rate, cut in advice.changes:
        assert best(bandwidth_bps=rate * 1.02).cut == cut
    for objective in ("latency", "energy", "bits"):
        values = [one.value(objective) for one in advise(BIG, PAPER, objective=objective, **LINK).options]
        assert values == sorted(values)


def test_codecs_that_change_bits_have_to_be_measured():
    advice = advise(BIG, PAPER, **LINK)
    assert {one.codec for one in advice.options} == {"raw", ""}
    assert any("with answers that the profile does not know" in reason for reason in advice.refused)
    assert {one.codec for one in advise(BIG, PAPER, min_accuracy=0.0, **LINK).options} > {"raw", "int4", ""}
    records = [
        CodecRecord(2, "int4", 33_000.0, 1e-4, 2e-4, 0.01, 1.0),
        CodecRecord(2, "int2", 17_000.0, 0, 0, 0.3, 0.5),
    ]
    measured = replace(BIG, codecs=tuple(records))
    found = {one.codec: one for one in advise(measured, PAPER, **LINK).options if one.cut == 2}
    assert found["int4"].wire_s == pytest.approx(0.033 + 0.01 + CALL_S + 33_000 / 8 * BYTE_S)
    assert (found["int4"].encode_s, found["int4"].decode_s) == (1e-4, 2e-4)
    assert "int2" not in found
    assert any(one.codec == "int2" for one in advise(measured, PAPER, min_accuracy=0.5, **LINK).options)


def test_a_picture_that_is_a_file_may_be_the_least_to_send():
    pixels = CodecRecord(0, "uint8", 640 * 427 * 24.0)
    records = (CodecRecord(0, "jpeg", 90_000.0), CodecRecord(0, "raw+zstd", 300_000.0), pixels)
    advice = advise(replace(BIG, codecs=records), PAPER, **LINK | {"bandwidth_bps": 1e7})
    first = advice.options[0]
    assert (first.cut, first.codec) == (0, "jpeg")
    assert first.wire_s == pytest.approx(90_000 / 1e7 + 0.01 + CALL_S + 90_000 / 8 * BYTE_S)
    # Decoded and preprocessed at the edge, by an estimate for each pixel of the picture.
    assert first.decode_s == pytest.approx(640 * 427 * FILE_CYCLES_PER_PIXEL / EDGE_CORE_HZ)
    assert first.total_s == pytest.approx(first.wire_s + first.decode_s + 1e9 / 1e11)
    measured = replace(BIG, codecs=(CodecRecord(0, "jpeg", 90_000.0, 1e-3, 7e-3, 0.0, 1.0),))
    timed = next(one for one in options_of(measured, PAPER, **LINK) if one.codec == "jpeg")
    assert (timed.encode_s, timed.decode_s) == (1e-3, 7e-3)
    assert advice.words.startswith("Do not split: send the picture's own file (jpeg, 11 KiB)")
    packed = next(one for one in advice.options if one.codec == "raw+zstd")
    # What a profile of bits alone does not know, the codec's own estimate of its work says.
    assert packed.encode_s == pytest.approx(40_000 * 24 / 1.5e9)
    assert packed.decode_s == pytest.approx(40_000 * 12 / EDGE_CORE_HZ)
    assert packed.energy_j == pytest.approx(0.3 * 300_000 / 1e7 + 1e-28 * 1.5e9**3 * 40_000 * 24 / 1.5e9)
    assert "jpeg" not in {one.codec for one in advise(replace(BIG, codecs=records), PAPER, files=False, **LINK).options}


def test_a_head_that_does_not_fit_is_refused():
    small = PAPER.model_copy(update={"memory_bytes": 1e6})
    heavy = replace(BIG, parameters=1_000_000)
    advice = advise(heavy, small, **LINK)
    assert all(one.cut == 0 for one in advice.options)
    assert any("does not fit into 0.001 GB" in reason for reason in advice.refused)
    with pytest.raises(InputError, match="paper can run no cut of big"):
        advise(heavy, PAPER.model_copy(update={"memory_bytes": 10.0}), **LINK)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("20Mbps", 2e7), ("800 kbps", 8e5), ("1.5 Mbit/s", 1.5e6), ("1e6", 1e6), ("2Gbps", 2e9), ("20 Mbit", 2e7)],
)
def test_rates(text, rate):
    assert parse_rate_bps(text) == rate


@pytest.mark.parametrize("text", ["fast", "", "-1Mbps", "0", "nanMbps", "1.2.3Mbps", "1Tbps", "1e99"])
def test_what_is_no_rate(text):
    with pytest.raises(InputError, match="--bandwidth: write a rate"):
        parse_rate_bps(text)


def test_a_rate_whose_unit_was_forgotten_is_asked_for():
    with pytest.raises(InputError, match="--bandwidth: 20 of what\\? Write a rate such as 20Mbps"):
        parse_rate_bps("20")


@pytest.mark.parametrize("text", ["20MBps", "20 MB/s"])
def test_a_rate_in_bytes_is_refused(text):
    with pytest.raises(InputError, match="is in bytes; rates are in bits: write 160Mbps"):
        parse_rate_bps(text)


def test_times():
    assert (parse_time_s("10ms"), parse_time_s("0.2s"), parse_time_s("0"), parse_time_s("0.01")) == (
        0.01,
        0.2,
        0.0,
        0.01,
    )
    with pytest.raises(InputError, match=r"--rtt: 10 of what\? Write a time such as 10ms or 10s"):
        parse_time_s("10")
    with pytest.raises(InputError, match="--rtt: write a time"):
        parse_time_s("soon")


def test_the_verb(capsys):
    arguments = ["advise", "resnet50", "--bandwidth", "20Mbps", "--rtt", "10ms", "--device", "pixel6:wifi"]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    totals = [one["total_s"] for one in record["options"]]
    assert totals == sorted(totals)
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "Do not split: send the picture's own file (jpeg, 166 KiB) and compute at the edge" in text
    assert "bits of codecs: pictures: china.jpg, flower.jpg; weights: drawn from seed 0, not trained" in text
    assert "Mbit/s on, cut 0 (input) is best" in text
    for wrong, says in (
        (["--bandwidth", "x"], "--bandwidth"),
        (["--bandwidth", "1Mbps", "--device", "x"], "device: no 'x'"),
        (["--bandwidth", "1Mbps", "--objective", "joy"], "--objective"),
    ):
        assert main(["advise", "resnet50", *wrong]) == 2
        assert says in capsys.readouterr().err


def test_the_best_three_are_measured_against_a_server(capsys):
    split = capture_card("mobilenet_v3_small")
    with EdgeServer([split]) as server:
        arguments = ["advise", "mobilenet_v3_small", "--bandwidth", "50Mbps", "--rtt", "4ms", "--repeat", "1"]
        assert main([*arguments, "--validate", server.address, "--emulate-link", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        best = [one for one in report["options"] if one["codec"] != "jpeg"][:3]
        assert [(one["cut"], one["codec"]) for one in report["validated"]] == [(b["cut"], b["codec"]) for b in best]
        for one, option in zip(report["validated"], best, strict=True):
            assert (one["predicted_s"], one["predicted_bits"]) == (option["total_s"], option["bits"])
            parts = one["seen_head_s"] + one["seen_wire_s"] + one["seen_tail_s"]
            assert one["seen_s"] == pytest.approx(parts)
            if one["codec"]:  # no sooner than the link
                link_s = one["seen_bits"] / 50e6 + 0.004
                assert min(one["seen_wire_s"], one["from_parts_s"]) > link_s
                assert one["seen_bits"] == pytest.approx(option["bits"], rel=0.2)
    assert main([*arguments, "--validate", server.address]) == 2
    assert f"no edge server answers at {server.address}" in capsys.readouterr().err
    for alone in (["--emulate-link"], ["--repeat", "3"]):
        assert main([*arguments, *alone]) == 2
        assert "give --validate HOST:PORT too" in capsys.readouterr().err
