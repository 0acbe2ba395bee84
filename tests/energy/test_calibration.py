"""Calibration against a host whose clock, frequency and meter are known exactly; and the verb on this one."""

from __future__ import annotations

import tomllib

import pytest
import tomli_w

from splitinfer.cli.main import main
from splitinfer.energy.calibration import calibrate, host_frequency_hz
from splitinfer.energy.meter import find_meter
from splitinfer.errors import InputError
from splitinfer.simulation import Scenario


class Host:
    """Runs 1e9 MACs in 40 ms; draws 3 W while its first two readings are taken, a second apart, and 11 W busy."""

    name = "known"

    def __init__(self):
        self.time_s = 0.0
        self.energy_j = 0.0
        self.readings = 0

    def now(self):
        return self.time_s

    def joules(self):
        self.readings += 1
        if self.readings == 2:
            self.time_s += 1.0
            self.energy_j += 3.0
        return self.energy_j

    def run(self):
        self.time_s += 0.04
        self.energy_j += 0.04 * 11.0


def test_rho_and_delta_of_a_known_host():
    host = Host()
    result = calibrate(
        [("known", 1, 10**9, host.run)], repeats=5, meter=host, idle_s=0.0, frequency_hz=lambda: 2e9, now=host.now
    )
    assert result.idle_power_w == pytest.approx(3.0)
    (timing,) = result.timings
    assert timing.median_s == pytest.approx(0.04)
    assert timing.cycles_per_mac == pytest.approx(0.08)
    assert timing.energy_coefficient == pytest.approx(8.0 / 8e27)
    assert result.device_fields() == pytest.approx(
        {"max_local_frequency_hz": 2e9, "cycles_per_mac": 0.08, "energy_coefficient": 1e-27}
    )


def test_what_the_host_does_not_tell_is_said_and_left_out():
    host = Host()
    result = calibrate([("known", 1, 10**9, host.run)], frequency_hz=lambda: None, now=host.now)
    assert result.device_fields() == {}
    assert result.timings[0].cycles_per_mac is None
    assert any("frequency cannot be read" in line for line in result.missing())
    assert any("no energy can be read" in line for line in result.missing())


def test_a_model_without_macs_is_refused():
    with pytest.raises(InputError, match="idle has no MACs"):
        calibrate([("idle", 1, 0, lambda: None)])


def test_frequency_is_read_from_cpufreq_or_cpuinfo(tmp_path):
    assert host_frequency_hz(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\ncpu MHz\t\t: 2000.5\nprocessor\t: 1\ncpu MHz\t\t: 2500.0\n")
    assert host_frequency_hz(tmp_path) == 2.5e9
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_cur_freq").write_text("3100000\n")
    assert host_frequency_hz(tmp_path) == 3.1e9


def test_meters_by_name():
    meter, about = find_meter("none")
    assert meter is None
    assert "energy comes from the model" in about
    with pytest.raises(InputError, match="meter: must be auto"):
        find_meter("guess")
    meter, about = find_meter("auto")
    assert (meter is None) == about.startswith("no meter")


def test_the_verb_writes_a_scenario_that_runs_here(tmp_path, capsys):
    out = tmp_path / "here.toml"
    arguments = ["calibrate", "--models", "mobilenet_v3_small", "--repeats", "2", "--meter", "none"]
    assert main([*arguments, "--scenario", "table2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "mobilenet_v3_small" in said
    fitted = Scenario.load(out)
    if "cycles_per_mac = " in said:
        assert fitted.cycles_per_mac != Scenario.preset("table2").cycles_per_mac
    assert fitted.energy_coefficient == Scenario.preset("table2").energy_coefficient
    assert tomllib.loads(out.read_text())["num_devices"] == 4


def test_a_scenario_takes_what_was_calibrated_on_two_hosts(tmp_path, capsys, monkeypatch):
    """On the device 1e9 MACs in 40 ms at 2 GHz, at the edge four times as fast at 4 GHz."""
    host = Host()
    device = calibrate([("resnet50", 1, 10**9, host.run)], repeats=1, frequency_hz=lambda: 2e9, now=host.now)
    edge = calibrate([("resnet50", 1, 4 * 10**9, host.run)], repeats=1, frequency_hz=lambda: 4e9, now=host.now)
    monkeypatch.chdir(tmp_path)
    for name, one in (("device", device), ("edge", edge)):
        (tmp_path / f"{name}.toml").write_text(tomli_w.dumps(one.to_dict()), "utf-8")
    fitting = ["calibrate", "--scenario", "table2", "--device", "device.toml", "--out", "world.toml"]
    assert main([*fitting, "--edge", "edge.toml"]) == 0
    monkeypatch.chdir("/")  # its paths are its own
    world = Scenario.load(tmp_path / "world.toml")
    assert (world.cycles_per_mac, world.max_edge_frequency_hz) == pytest.approx((0.04, 4e9))
    assert [card.used_core.limit_hz for card in world.cards] == [2e9] * 4
    assert world.device_cycles_per_mac(0, "resnet50") == pytest.approx(0.08)
    capsys.readouterr()
    assert main(fitting) == 2
    assert "--device and --edge go together" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_cycles_per_mac_are_an_engines_at_a_number_of_threads(tmp_path, capsys, monkeypatch, engine):
    threads = []
    if engine == "onnxruntime":
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        monkeypatch.setenv("SPLITINFER_CACHE", str(tmp_path))
        session = onnxruntime.InferenceSession

        def seen(model, options, **more):
            if options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL:  # not to export
                threads.append(options.intra_op_num_threads)
            return session(model, options, **more)

        monkeypatch.setattr(onnxruntime, "InferenceSession", seen)
    monkeypatch.setattr("splitinfer.energy.calibration.host_frequency_hz", lambda: 2e9)
    card = tmp_path / "plain.toml"
    card.write_text('source = "tests.runtime.small:plain"\n[[inputs]]\nshape = [3, 32, 32]\n', "utf-8")
    arguments = ["--models", str(card), "--engine", engine, "--threads", "1,2", "--repeats", "1", "--meter", "none"]
    out = tmp_path / "device.toml"
    assert main(["calibrate", *arguments, "--out", str(out)]) == 0
    assert f"computed by {engine}" in capsys.readouterr().out
    fitted = tomllib.loads(out.read_text("utf-8"))
    assert fitted["engine"] == engine
    measured = fitted["measured"]
    assert [one["threads"] for one in measured] == [1, 2]
    assert threads == ([1, 2] if engine == "onnxruntime" else [])
    for one in measured:
        assert one["cycles_per_mac"] == pytest.approx(one["median_s"] * 2e9 / one["macs"])
    assert fitted["cycles_per_mac"] == pytest.approx(sum(one["cycles_per_mac"] for one in measured) / 2)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--threads", "0"], "--threads"), (["--meter", "guess"], "meter: must be"), (["--scenario", "table2"], "--out")],
)
def test_mistakes_are_one_line(arguments, reason, capsys):
    assert main(["calibrate", *arguments]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.splitlines()) == 1


def test_a_meter_and_three_frequencies_give_the_law():
    """A processor of 0.3 + 0.2 f + 0.1 f^3 watts (GHz) above 2 idle ones, seen at three frequencies."""
    clock = FakeHost([1e9, 1.5e9, 2.5e9], lambda ghz: 0.3 + 0.2 * ghz + 0.1 * ghz**3)
    models = [(f"m{i}", 1, 1_000_000, clock.inference) for i in range(3)]
    result = calibrate(models, repeats=3, meter=clock, idle_s=0.0, frequency_hz=clock.frequency_hz, now=clock.now)
    law = result.power_law
    assert law is not None
    assert law.base_w == pytest.approx(0.3, rel=1e-2)
    assert law.linear_j == pytest.approx(0.2e-9, rel=1e-2)
    assert law.energy_coefficient == pytest.approx(0.1e-27, rel=1e-2)
    assert law.error < 1e-4 < law.cubic_error


class FakeHost:
    """A meter, a clock and a processor in one: each model runs at the next frequency."""

    name = "fake"

    def __init__(self, hz, watts):
        self._hz = list(hz)
        self._watts = watts
        self._time_s = self._joules = 0.0
        self._at = self._reads = 0

    def now(self):
        return self._time_s

    def joules(self):
        self._reads += 1
        if self._reads == 2:  # the end of the idle watch
            self._advance(1.0, 2.0)
        return self._joules

    def _advance(self, seconds, watts):
        self._time_s += seconds
        self._joules += seconds * watts

    def inference(self):
        self._advance(1.0, 2.0 + self._watts(self._hz[self._at] / 1e9))

    def frequency_hz(self):
        self._at += 1
        return self._hz[self._at - 1] if self._at < len(self._hz) else self._hz[-1]
