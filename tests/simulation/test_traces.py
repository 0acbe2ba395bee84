"""Traces as people have them: read as what they are, or refused with the line at fault."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitinfer.errors import InputError, ScenarioError
from splitinfer.radio import rate_bps
from splitinfer.scheduling import FixedCut
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.comparison import compare
from splitinfer.simulation.identity import digest
from splitinfer.simulation.surroundings import Surroundings
from splitinfer.simulation.traces import packet_means, slot_means
from tests.simulation.small import small_scenario

ONE = {"num_devices": 1}


def arrivals_of(tmp_path, text, encoding="utf-8", **changes):
    path = tmp_path / "arrivals.csv"
    path.write_text(text, encoding)
    scenario = small_scenario(arrivals={"kind": "trace", "path": str(path)}, **changes)
    counts = Surroundings(scenario, 0).draw(400)[1]
    return [tuple(row) for row in np.argwhere(counts).tolist()]


AT = [(0, 0, 0), (50, 1, 1), (150, 0, 1)]


@pytest.mark.parametrize(
    ("column", "times"),
    [
        ("time_s", ["0", "0.5", "1.5"]),
        ("time_s", ["1732500000", "1732500000.5", "1732500001.5"]),
        ("epoch_s", ["1732500000", "1732500000.5", "1732500001.5"]),
        ("epoch_ms", ["1732500000000", "1732500000500", "1732500001500"]),
        ("timestamp", ["1732500000000", "1732500000500", "1732500001500"]),
        ("time_ms", ["0", "500", "1500"]),
        ("time", ["2026-11-25T10:00:00+01:00", "2026-11-25T10:00:00.5+01:00", "2026-11-25T09:00:01.5Z"]),
        ("datetime", ["2026-11-25 10:00:00", "2026-11-25 10:00:00.500", "2026-11-25 10:00:01.500"]),
        ("Timestamp", ["2019.12.14_10.16.30", "2019.12.14_10.16.30", "2019.12.14_10.16.31"]),
    ],
)
def test_every_way_to_write_a_time(tmp_path, column, times):
    rows = [f"{time},{device},{service}" for time, (_, device, service) in zip(times, AT, strict=True)]
    expected = AT if "_" not in times[0] else [(0, 0, 0), (0, 1, 1), (100, 0, 1)]
    assert arrivals_of(tmp_path, "\n".join([f"{column},device,service", *rows])) == expected


def test_what_spreadsheets_write(tmp_path):
    assert arrivals_of(tmp_path, "time_s,device,service\r\n0.5,0,1\r\n\r\n", "utf-8-sig") == [(50, 0, 1)]
    assert arrivals_of(tmp_path, "Time_S;Device;Service\n0.5;0;1\n") == [(50, 0, 1)]


def test_columns_that_say_nothing_may_be_left_out(tmp_path):
    assert arrivals_of(tmp_path, "time_s,service\n1,1\n", **ONE) == [(100, 0, 1)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rows"),
        ("time_s,device,service\n", "has no rows"),
        ("time_s,device,service\nnan,0,0\n", "line 2: time_s is nan, which is not finite"),
        ("time_s,device,service\n1,0,0\ninf,0,0\n", "line 3: time_s is inf, which is not finite"),
        ("time_s,device,service\n-1,0,0\n", "line 2: time_s is negative"),
        ("time_s,device,service\n1,0,0\n1732500000,0,0\n", "line 3: time_s is 1.7325e+09 s after the start"),
        ("time_s,device,service\nsoon,0,0\n", "line 2: time_s is 'soon', neither a number nor an ISO 8601 time"),
        ("time_s,device,service\n1,7,0\n", "line 2: device 7 is not one of 0..1"),
        ("time_s,device,service\n1,0.5,0\n", "line 2: device 0.5 is not one of 0..1"),
        ("time_s,device,service\n1,0\n", "line 2: has 2 values; the header has 3"),
        ("when,device,service\n1,0,0\n", "no column time_s or time or timestamp"),
        ("time_s,service\n1,0\n", "no column device"),
    ],
)
def test_wrong_arrivals_are_refused_with_their_line(tmp_path, text, says):
    with pytest.raises(ScenarioError, match=r"^arrivals.path: ") as caught:
        arrivals_of(tmp_path, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def full_rates(scenario, slots):
    gains, _ = Surroundings(scenario, 0).draw(slots)
    return rate_bps(
        scenario.max_power_w,
        gain=gains,
        bandwidth_hz=scenario.bandwidth_hz / scenario.num_devices,
        noise_w_per_hz=scenario.noise_w_per_hz,
    )


def test_a_rate_trace_carries_that_rate_at_full_power(tmp_path):
    path = tmp_path / "link.csv"
    path.write_text("time_s,rate_mbps\n0,2\n0.5,8\n1.0,0\n", "utf-8")
    scenario = small_scenario(channel={"kind": "rate", "path": str(path)}, bandwidth_hz=4e6)
    rates = full_rates(scenario, 200)
    np.testing.assert_allclose(rates[:50], 2e6, rtol=1e-9)
    np.testing.assert_allclose(rates[50:100], 8e6, rtol=1e-9)
    np.testing.assert_allclose(rates[100:150], 0.0, atol=1e-3)
    np.testing.assert_allclose(rates[150:200], 2e6, rtol=1e-9, err_msg="it starts again")
    run = simulate(scenario.replace(transmission_energy_weight=0.0), FixedCut([0, 0]), 2000)
    assert run.finished > 0.9 * run.arrived > 10
    assert run.utilisation.max_rate_bps == pytest.approx([rates[:150].mean()] * 2, rel=0.02)


def test_columns_and_units_are_named(tmp_path):
    path = tmp_path / "drive.csv"
    path.write_text(
        "Timestamp,Speed,DL_bitrate,UL_bitrate\n2019.12.14_10.16.30,12,90000,1000\n2019.12.14_10.16.30,12,1,1\n"
        "2019.12.14_10.16.31,12,80000,3000\n",
        "utf-8",
    )
    drive = small_scenario(channel={"kind": "drive-test", "path": str(path)})
    np.testing.assert_allclose(full_rates(drive, 200)[:, 0], np.repeat([1e6, 3e6], 100), rtol=1e-9)
    down = {
        "kind": "rate",
        "path": str(path),
        "time_column": "Timestamp",
        "rate_column": "DL_bitrate",
        "unit": "kbit/s",
    }
    np.testing.assert_allclose(full_rates(small_scenario(channel=down), 100), 90e6, rtol=1e-9)


def test_mahimahi_packets(tmp_path):
    path = tmp_path / "link.up"
    path.write_text("5\n5\n10\n40\n", "utf-8")
    scenario = small_scenario(channel={"kind": "mahimahi", "path": str(path)})
    packet = 1504 * 8 / 0.01
    np.testing.assert_allclose(full_rates(scenario, 8)[:, 1], np.array([3, 0, 0, 1] * 2) * packet, rtol=1e-9, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("trace", "0.5,0.5\n2000,0.1\n", "line 2: a channel gain is a number above 0 and up to 1, not 2000; for rates"),
        ("trace", "1e-9,0\n", "line 1: a channel gain is a number above 0"),
        ("trace", "1e-9,nan\n", "line 1: the gain is nan, which is not finite"),
        ("trace", "1e-9\n", "line 1: has 1 columns; num_devices is 2"),
        ("trace", "", "has no rows"),
        ("rate", "time_s,rate_mbps\n0,-1\n", "line 2: a rate of -1 Mbit/s is not within 0 and 1e+06 Mbit/s"),
        ("rate", "time_s,rate_mbps\n0,20000000\n", "line 2: a rate of 2e+07 Mbit/s is not within"),
        ("rate", "time_s,rate_mbps\n1,1\n0,1\n", "line 3: the time goes back"),
        ("rate", "time_s,mbps\n1,1\n", "has no column rate_mbps; it has time_s, mbps"),
        ("rate", "time_s,rate_mbps\n0,1000\n", "2000 bit/s per Hz; set bandwidth_hz"),
        ("mahimahi", "1\n2.5\n", "line 2: '2.5' is no whole number of milliseconds"),
        ("mahimahi", "9\n3\n", "line 2: the time goes back"),
        ("mahimahi", "", "has no packets"),
        ("drive-test", "time_s,rate_mbps\n0,1\n", "has no column Timestamp"),
    ],
)
def test_wrong_links_are_refused_with_their_line(tmp_path, kind, text, says):
    path = tmp_path / "link"
    path.write_text(text, "utf-8")
    with pytest.raises(ScenarioError, match=r"^channel.path: ") as caught:
        small_scenario(channel={"kind": kind, "path": str(path)})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gain_trace_may_have_a_header_and_counts_by_content(tmp_path):
    for name, text in (
        ("a.csv", "near,far\n1e-9,2e-9\n"),
        ("b.csv", "near,far\n1e-9,2e-9\n"),
        ("c.csv", "1e-9,3e-9\n"),
    ):
        (tmp_path / name).write_text(text, "utf-8")
    worlds = [
        small_scenario(channel={"kind": "trace", "path": str(tmp_path / name)}) for name in ("a.csv", "b.csv", "c.csv")
    ]
    assert digest(worlds[0]) == digest(worlds[1]) != digest(worlds[2])
    np.testing.assert_allclose(Surroundings(worlds[0], 0).draw(3)[0], [[1e-9, 2e-9]] * 3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0.001, 0.5), st.floats(0, 1e7)), min_size=1, max_size=12))
def test_means_over_slots_keep_the_bits(steps):
    times = np.cumsum([0.0, *(length for length, _ in steps[:-1])])
    rates = np.array([rate for _, rate in steps])
    means = slot_means(times, rates, 0.01)
    last = float(np.median(np.diff(times))) if len(times) > 1 else 0.01
    ends = np.append(times, times[-1] + last)
    fine = np.linspace(0, len(means) * 0.01, 20 * len(means), endpoint=False) + 0.01 / 40
    if len(means) * 0.01 <= ends[-1]:
        sampled = rates[np.clip(np.searchsorted(times, fine, side="right") - 1, 0, len(rates) - 1)]
        assert means.mean() == pytest.approx(sampled.mean(), rel=0.3, abs=0.06 * rates.max() + 1e-9)
    assert packet_means(np.array([0.001, 0.02]), 0.01).sum() == pytest.approx(2 * 1504 * 8 / 0.01)


def test_the_end_of_a_trace_is_said(tmp_path):
    path = tmp_path / "arrivals.csv"
    path.write_text("time_s,device,service\n1,0,0\n", "utf-8")
    scenario = small_scenario(arrivals={"kind": "trace", "path": str(path)}, distances_m=(100.0, 100.0))
    run = simulate(scenario, FixedCut([3, 2]), 500)
    assert len(run.notes) == 1
    assert run.notes[0].startswith("the trace of arrivals ends at 1.0 s and the run at 5.0 s: nothing arrives between")
    assert run.to_dict()["notes"] == list(run.notes)
    gains = tmp_path / "gains.csv"
    gains.write_text("1e-9,1e-9\n", "utf-8")
    recorded = small_scenario(channel={"kind": "trace", "path": str(gains)}, distances_m=(100.0, 100.0))
    notes = simulate(recorded, FixedCut([3, 2]), 50).notes
    assert notes[0] == "distances_m is not used: the channel is recorded (kind trace)"
    assert "1 slots and starts again" in notes[1]


def test_no_interval_where_nothing_depends_on_the_seed(tmp_path):
    path = tmp_path / "arrivals.csv"
    path.write_text("time_s,device,service\n1,0,0\n2,1,1\n", "utf-8")
    fixed = small_scenario(arrivals={"kind": "trace", "path": str(path)}, channel="steady")
    one = compare(fixed, [FixedCut([3, 2])], seeds=range(4), slots=400)[0]
    assert not one.depends_on_seed
    assert np.isnan(one.energy_j.half_width)
    assert one.to_dict()["energy_j_half_width"] is None
    assert compare(fixed.replace(channel="rayleigh"), [FixedCut([0, 0])], seeds=range(4), slots=400)[0].depends_on_seed


OWN = """
import numpy as np
class Ticks:
    def __init__(self, every=10):
        self.every = every
    def start(self, services, slot_s, rng):
        self.at = 0
        self.shape = services.shape
        return self
    def counts(self, rates_hz, slots):
        at = np.arange(self.at, self.at + slots)
        self.at += slots
        return np.broadcast_to((at % self.every == 0)[:, None, None], (slots, *self.shape)).astype(int)
class Flat:
    def start(self, devices, slot_s, rng):
        return self
    def gains(self, mean_gain, slots):
        return np.broadcast_to(2 * mean_gain, (slots, mean_gain.shape[-1]))
class Wrong(Flat):
    def gains(self, mean_gain, slots):
        return -np.ones((slots, 1))
class NoStart:
    pass
"""


def test_arrivals_and_channels_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "ownworld.py").write_text(OWN, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = small_scenario(arrivals="ownworld:Ticks(every=50)", channel="ownworld:Flat")
    gains, counts = Surroundings(own, 0).draw(100)
    assert np.argwhere(counts[:, 0, 0]).ravel().tolist() == [0, 50]
    np.testing.assert_allclose(gains, 2 * Surroundings(own.replace(channel="steady"), 0).draw(100)[0])
    saved = tmp_path / "world.toml"
    own.save(saved)
    assert digest(Scenario.load(saved)) == digest(own)
    for field, name, says in (
        ("channel", "ownworld:NoStart", "has no method start"),
        ("channel", "ownworld:Nothing", "has no class 'Nothing'"),
        ("arrivals", "ownworld:Ticks(often=1)", "TypeError"),
        ("arrivals", "nowhere:Ticks", "cannot import nowhere"),
    ):
        with pytest.raises(InputError, match=rf"^{field}: ") as caught:
            small_scenario(**{field: name})
        assert says in str(caught.value)
    with pytest.raises(InputError, match="channel: ownworld:Wrong must return finite gains of at least 0"):
        simulate(small_scenario(channel="ownworld:Wrong"), FixedCut([3, 2]), 10)


def test_an_empty_scenario_file_is_no_scenario(tmp_path):
    path = tmp_path / "empty.toml"
    path.write_text("# nothing\n", "utf-8")
    with pytest.raises(ScenarioError, match="sets no field"):
        Scenario.load(path)
