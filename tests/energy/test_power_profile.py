"""Device cards out of Android's power profiles."""

from __future__ import annotations

import tomllib

import pytest

from splitinfer.cli.main import main
from splitinfer.energy.card import load_device
from splitinfer.energy.power_profile import card_fields
from splitinfer.errors import InputError

PROFILE = """<?xml version="1.0" encoding="utf-8"?>
<device name="Android">
  <array name="cpu.clusters.cores"><value>4</value><value>2</value></array>
  <array name="cpu.core_speeds.cluster0"><value>300000</value><value>1000000</value></array>
  <array name="cpu.core_power.cluster0"><value>10</value><value>50.5</value></array>
  <array name="cpu.core_speeds.cluster1"><value>500000</value><value>2000000</value></array>
  <array name="cpu.core_power.cluster1"><value>100</value><value>600</value></array>
  <item name="wifi.controller.tx">470</item>
  <item name="wifi.controller.voltage">3700</item>
  <array name="modem.controller.tx"><value>150</value><value>450</value></array>
  <item name="modem.controller.voltage">3700</item>
</device>
"""


def written(tmp_path, text=PROFILE):
    path = tmp_path / "power_profile.xml"
    path.write_text(text, "utf-8")
    return path


def test_a_profile_becomes_a_card_that_scenarios_take(tmp_path, capsys):
    out = tmp_path / "phone.toml"
    assert main(["calibrate", "--power-profile", str(written(tmp_path)), "--out", str(out)]) == 0
    card = load_device(str(out))
    assert card.core == "cluster1"
    assert card.used_core.frequency_hz == (5e8, 2e9)
    assert card.used_core.watts == pytest.approx((0.385, 2.31))
    assert card.radios["wifi"].circuit_w == pytest.approx(1.739)
    cellular = card.radios["cellular"]
    assert cellular.circuit_w == pytest.approx(0.555)
    assert cellular.max_power_w / cellular.amplifier_efficiency == pytest.approx(1.11, rel=1e-4)
    assert "phone.toml" in capsys.readouterr().out
    arguments = ["simulate", "--device", f"{out}", "--policy", "price", "--allocation", "price", "--slots", "500"]
    assert main(arguments) == 0


def test_older_profiles_with_one_cluster(tmp_path):
    text = """<device><array name="cpu.speeds"><value>1000000</value></array>
    <array name="cpu.active"><value>200</value></array><item name="wifi.active">100</item></device>"""
    fields = card_fields(written(tmp_path, text), voltage_v=4.0)
    assert fields["cores"][0]["watts"] == [0.8]
    assert fields["radios"]["wifi"]["circuit_w"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (">470<", ">lots<", "wifi.controller.tx holds 'lots'"),
        ("<value>10</value>", "", "cluster 0 has 2 speeds and 1 powers"),
        ("<value>10</value>", "<value>-10</value>", "must be greater than 0"),
        ("cpu.core_speeds.cluster0", "gpu", "has no cpu.core_speeds.cluster0"),
        ("<device name", "<phone name", "is no XML"),
        ("</device>", "", "is no XML"),
    ],
)
def test_what_is_no_profile_is_refused_in_one_line(tmp_path, old, new, says):
    with pytest.raises(InputError, match=r"^power profile: ") as caught:
        card_fields(written(tmp_path, PROFILE.replace(old, new)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absurd_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="more than 100"):
        card_fields(written(tmp_path), max_bytes=100)
    bomb = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
    )
    with pytest.raises(InputError, match="is no XML"):
        card_fields(written(tmp_path, bomb + ']><device><item name="x">&j;</item></device>'))
    with pytest.raises(InputError, match="cannot read"):
        card_fields(tmp_path / "none.xml")


def test_without_out_the_card_is_printed(tmp_path, capsys):
    assert main(["calibrate", "--power-profile", str(written(tmp_path))]) == 0
    assert tomllib.loads(capsys.readouterr().out)["radio"] == "wifi"
