"""Scenarios: the paper's defaults, what is refused and how, files."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.errors import ScenarioError
from splitinfer.profiling.profile import CutRecord, Profile, TensorRecord
from splitinfer.simulation import Scenario, find_scenario, preset_names, with_settings
from splitinfer.simulation.build import setting_of
from tests.simulation.small import BIG, LITTLE, small_scenario


def test_table2_is_the_papers_table():
    scenario = Scenario.preset("table2")
    expected = {
        "num_devices": 4,
        "arrival_rate_hz": 0.2,
        "slot_s": 0.01,
        "slots_per_period": 10,
        "max_local_frequency_hz": 1.5e9,
        "max_edge_frequency_hz": 20e9,
        "max_power_w": 0.3,
        "cycles_per_mac": 0.12,
        "energy_coefficient": 1e-28,
        "bandwidth_hz": 1e6,
        "noise_w_per_hz": pytest.approx(3.98e-21, rel=1e-3),
        "antenna_gain": 3.0,
        "carrier_frequency_hz": 915e6,
        "path_loss_exponent": 3.0,
        "distances_m": pytest.approx((150, 183.3, 216.7, 250), abs=0.05),
        "local_energy_weight": 1e9,
        "transmission_energy_weight": 1e6,
        "queue_weights": (0.6, 0.2, 0.2),
        "bits_per_element": 8.0,
        "services": ("resnet50", "mobilenet_v2"),
    }
    assert {name: getattr(scenario, name) for name in expected} == expected


def test_a_codecs_estimate_stands_instead_of_bits_per_element():
    scenario = Scenario.preset("table2")
    elements = scenario.profiles[0][0].crossing_elements
    bits = {name: setting_of(scenario.replace(codecs=name)).transmission_bits[0, 0] for name in ("raw", "float16")}
    # Every crossing tensor of a ResNet is float32.
    np.testing.assert_array_equal(bits["raw"][: len(elements)], 32 * elements)
    np.testing.assert_array_equal(bits["float16"], bits["raw"] / 2)
    wholes = TensorRecord("x", (3, 5), "int64"), TensorRecord("y", (7,), "float64")
    cuts = CutRecord(0, "input", (3, 5), 0, wholes), CutRecord(1, "last", (2,), 10, ())
    mixed = small_scenario(services=(Profile("mixed", wholes, 0, 10, cuts),), codecs="float16")
    assert setting_of(mixed).transmission_bits[0, 0].tolist() == [15 * 64 + 7 * 16, 0]
    with pytest.raises(ScenarioError, match=r"^codecs: there is no codec 'zip'; known: raw, float16, .*ternary\+ans$"):
        scenario.replace(codecs="zip")


def test_the_file_of_table2_says_what_the_defaults_say():
    preset = Scenario.preset("table2")
    assert preset.replace(fixed_cuts=None) == Scenario(name="table2")


def test_every_preset_loads_and_busy_is_table2_with_more_requests():
    worlds = {name: Scenario.preset(name) for name in preset_names()}
    assert set(worlds) >= {"table2", "busy", "xr", "drifting"}
    assert worlds["busy"] == worlds["table2"].replace(name="busy", arrival_rate_hz=1.0)
    assert worlds["xr"].num_services == (4, 4, 4, 4)
    assert worlds["xr"].arrivals.kind == "periodic"
    assert worlds["drifting"].drift is not None


def test_bits_follow_the_wire_not_the_models_dtype():
    # 224 x 224 x 3 elements of 8 bits (SPEC 5.9), though the model's own input is float32.
    profile = Scenario.preset("table2").profiles[0][0]
    assert profile.input_elements * Scenario.preset("table2").bits_per_element == 1_204_224


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_power_w": -0.3}, "max_power_w"),
        ({"max_power_w": 0}, "max_power_w"),
        ({"max_power_w": True}, "max_power_w"),
        ({"max_local_frequency_hz": float("nan")}, "max_local_frequency_hz"),
        ({"bandwidth_hz": float("inf")}, "bandwidth_hz"),
        ({"slot_s": "fast"}, "slot_s"),
        ({"num_devices": 0}, "num_devices"),
        ({"num_devices": 2.5}, "num_devices"),
        ({"services": ("no_such_model",)}, "services[0]"),
        ({"services": ()}, "services"),
        ({"services": 3}, "services"),
        ({"services": ((BIG,), (BIG,), (BIG,))}, "services"),
        ({"services": ((BIG,), ())}, "services"),
        ({"services": ("no/such/file.json",)}, "services[0]"),
        ({"fixed_cuts": (0, 99)}, "fixed_cuts"),
        ({"fixed_cuts": (-1, 0)}, "fixed_cuts"),
        ({"fixed_cuts": (0,)}, "fixed_cuts"),
        ({"arrival_rate_hz": -1.0}, "arrival_rate_hz"),
        ({"arrival_rate_hz": (1.0, -2.0)}, "arrival_rate_hz[1]"),
        ({"arrival_rate_hz": (1.0, 2.0, 3.0)}, "arrival_rate_hz"),
        ({"arrival_rate_hz": ((1.0, 2.0),)}, "arrival_rate_hz"),
        ({"p95_latency_s": (1.0,)}, "p95_latency_s"),
        ({"distances_m": (100.0, 0.0)}, "distances_m[1]"),
        ({"distances_m": (100.0,)}, "distances_m"),
        ({"queue_weights": (1.0, 1.0)}, "queue_weights"),
        ({"arrivals": "sometimes"}, "arrivals"),
        ({"arrivals": {"kind": "bursty", "mean_on_s": 0.01}}, "arrivals.mean_on_s"),
        ({"arrivals": {"kind": "periodic", "phase": 1.5}}, "arrivals.phase"),
        ({"arrivals": {"kind": "trace"}}, "arrivals.path"),
        ({"arrivals": {"kind": "trace", "file": "requests.csv"}}, "arrivals.file"),
        ({"arrivals": {"kind": "trace", "path": "no/such.csv"}}, "arrivals.path"),
        ({"channel": {"kind": "correlated", "coherence_time_s": 0}}, "channel.coherence_time_s"),
        ({"channel": {"kind": "trace", "path": "no/such.csv"}}, "channel.path"),
        ({"drift": {"steps": [{"at_s": 1.0}]}}, "drift.steps"),
        ({"drift": {"steps": [{"at_s": 0.0}, {"at_s": 0.0}]}}, "drift.steps"),
        ({"drift": {"steps": [{"at_s": 0.0}], "cycle_s": -1.0}}, "drift.cycle_s"),
        ({"drift": {"steps": [{"at_s": 0.0, "distances_m": (1.0, 2.0, 3.0)}]}}, "drift.steps[0].distances_m"),
        ({"max_powr_w": 0.3}, "max_powr_w"),
    ],
)
def test_nonsense_is_refused_in_one_line_that_names_the_field(changes, field):
    with pytest.raises(ScenarioError) as refusal:
        small_scenario(**changes)
    message = str(refusal.value)
    assert message.startswith(f"{field}:"), message
    assert "\n" not in message


def test_replace_validates_anew_and_leaves_the_original():
    scenario = small_scenario()
    faster = scenario.replace(max_local_frequency_hz=2e9)
    assert (scenario.max_local_frequency_hz, faster.max_local_frequency_hz) == (1.5e9, 2e9)
    with pytest.raises(ScenarioError, match="max_local_frequency_hz"):
        scenario.replace(max_local_frequency_hz=-1.0)


def test_defaults_follow_what_they_depend_on():
    scenario = small_scenario(fixed_cuts=(0, 2))
    assert scenario.replace(num_devices=3).distances_m == (150.0, 200.0, 250.0)
    assert scenario.replace(services=(LITTLE,)).fixed_cuts is None


def test_devices_may_host_different_services():
    scenario = small_scenario(services=((BIG, LITTLE), (LITTLE,)), arrival_rate_hz=((1.0, 2.0), (3.0,)))
    np.testing.assert_array_equal(scenario.active, [[True, True], [True, False]])
    np.testing.assert_array_equal(scenario.num_cuts, [[3, 2], [2, 0]])
    np.testing.assert_array_equal(scenario.arrival_rates_hz(), [[1.0, 2.0], [3.0, 0.0]])
    np.testing.assert_array_equal(scenario.cut_array([[1, 2], [0]]), [[1, 2], [0, 0]])


def test_numpy_numbers_are_numbers():
    scenario = small_scenario(max_power_w=np.float32(0.25), num_devices=np.int64(3), distances_m=np.array([1.0, 2, 3]))
    assert (scenario.max_power_w, scenario.num_devices, scenario.distances_m) == (0.25, 3, (1.0, 2.0, 3.0))


def test_a_file_gives_back_what_was_saved(tmp_path):
    scenario = Scenario.preset("drifting").replace(p95_latency_s=(0.5, 0.0), arrivals={"kind": "bursty"}, seed=7)
    scenario.save(tmp_path / "world.toml")
    assert Scenario.load(tmp_path / "world.toml") == scenario
    assert find_scenario(str(tmp_path / "world.toml")) == scenario


def test_profile_objects_are_saved_beside_the_file(tmp_path):
    scenario = small_scenario()
    scenario.save(tmp_path / "world.toml")
    loaded = Scenario.load(tmp_path / "world.toml")
    assert loaded.profiles == scenario.profiles


@pytest.mark.parametrize("text", ["max_power_w = [", "\xff"])
def test_what_is_no_toml_is_refused(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ScenarioError, match=r"broken\.toml"):
        Scenario.load(path)


def test_unknown_presets_and_absent_files_are_refused():
    with pytest.raises(ScenarioError, match="busy"):
        Scenario.preset("bussy")
    with pytest.raises(ScenarioError, match="cannot read"):
        find_scenario("no/such/world.toml")


def test_settings_from_a_command_line():
    scenario = with_settings(
        small_scenario(max_power_w=0.1),
        ["max_local_frequency_hz=2e9", "channel=correlated", "channel.coherence_time_s=0.2", "arrival_rate_hz=0.5,1.5"],
    )
    assert scenario.max_local_frequency_hz == 2e9
    assert (scenario.channel.kind, scenario.channel.coherence_time_s) == ("correlated", 0.2)
    assert scenario.arrival_rate_hz == (0.5, 1.5)
    assert with_settings(scenario, ["max_power_w="]).max_power_w == 0.3


@pytest.mark.parametrize("setting", ["max_power_w", "max_power_w=-1", "no_such=1", "slot_s.x=1"])
def test_bad_settings_are_refused(setting):
    with pytest.raises(ScenarioError, match=setting.split("=")[0].split(".")[0]):
        with_settings(small_scenario(), [setting])
