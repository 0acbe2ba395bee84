"""Device cards: what is shipped, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from splitinfer.energy.card import device_names, load_device
from splitinfer.errors import InputError

GOOD = """
core = "big"
radio = "wifi"

[[cores]]
name = "big"
frequency_hz = [1e9, 2e9]
watts = [0.5, 2.0]
cycles_per_mac = 0.2
source = "my meter"
licence = "mine"

[radios.wifi]
circuit_w = 0.3
max_power_w = 0.1
source = "my meter"
licence = "mine"
"""


def test_the_shipped_cards():
    assert {"paper", "pixel6", "snapdragon865", "jetson_nano"} <= set(device_names())
    for name in device_names():
        card = load_device(name)
        for part in (*card.cores, *card.radios.values()):
            assert part.source
            assert part.licence
    for name in ("pixel6", "snapdragon865", "jetson_nano"):
        assert {"wifi", "lte", "5g"} <= set(load_device(name).radios)


def test_the_papers_card_is_table_2():
    card = load_device("paper")
    assert card.used_core.row().tolist() == [0.0, 0.0, 1e-28, 1.5e9, 0.0]
    assert card.used_core.limit_hz == 1.5e9
    assert card.used_radio.row().tolist() == [0.0, 1.0, 0.0]
    assert card.effective_cubic == 1e-28


def test_figures_of_the_vendors_tables():
    a76 = load_device("pixel6").used_core
    assert a76.power_w(2.253e9) == pytest.approx(2.635, rel=1e-3)
    assert a76.cubic_fit()[1] == pytest.approx(0.52, abs=0.01)
    prime = load_device("snapdragon865").used_core
    at = np.linspace(0.84e9, 2.84e9, 2001)
    per_cycle = [(prime.base_w + prime.energy_coefficient * f**3) / f for f in at]
    assert at[int(np.argmin(per_cycle))] == pytest.approx(1.31e9, rel=0.02)
    assert min(per_cycle) == pytest.approx(0.325e-9, rel=0.03)


def test_another_radio_or_core_of_a_card():
    card = load_device("pixel6:lte:x1")
    assert (card.radio, card.core) == ("lte", "x1")
    with pytest.raises(InputError, match=r"pixel6 has no 'laser'; radios wifi"):
        load_device("pixel6:laser")


def test_a_card_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD, "utf-8")
    card = load_device(str(path))
    assert card.name == "mine"
    assert card.used_core.power_w(1.5e9) == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("watts = [0.5, 2.0]", "watts = [0.5]", "cores[0]: frequency_hz has 2 values, watts 1"),
        ("watts = [0.5, 2.0]", "watts = [0.5, -2.0]", "cores[0].watts[1]: must be greater than 0, not -2.0"),
        ('core = "big"', 'core = "huge"', "core: no 'huge'; there are big"),
        ('source = "my meter"', 'source = ""', "cores[0].source"),
        ("cycles_per_mac = 0.2", "", "cores[0].cycles_per_mac: is missing"),
        ("[[cores]]", "[[cores", "is no TOML file"),
        ('radio = "wifi"', 'radio = "wifi"\ncolour = "red"', "colour: no such field"),
        ("max_power_w = 0.1", "max_power_w = inf", "radios.wifi.max_power_w"),
        ("[radios.wifi]", '[radios."wi-fi 6"]\nbit_j = -1', "radios.wi-fi 6.bit_j: must be"),
        ("[radios.wifi]", "[radios.float]\nbit_j = -1", "radios.float.bit_j: must be"),
    ],
)
def test_a_wrong_card_is_refused_with_its_field(tmp_path, old, new, says):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new, 1), "utf-8")
    with pytest.raises(InputError, match=r"^device: mine.toml") as caught:
        load_device(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_card():
    with pytest.raises(InputError, match="no 'iphone'; there are jetson_nano, paper"):
        load_device("iphone")
