"""A tiny world on real models: two devices with two services each, loads that need both of the device's resources."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from splitinfer.learning.run_folder import POLICY_FILE, RUN_FILE, SCHEMA
from splitinfer.learning.settings import TrainingSettings
from splitinfer.profiling import profile
from splitinfer.runtime.loop.services import ServiceLoader
from splitinfer.runtime.loop.world import card_files
from splitinfer.simulation import Scenario

CARD = """
source = "tests.runtime.small:{factory}"
[[inputs]]
shape = [3, 32, 32]
[preprocessing]
resize = 32
"""


@pytest.fixture(scope="session")
def tiny_cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tiny")
    files = []
    for name, factory in (("plain", "plain"), ("branchy", "Branchy")):
        files.append(folder / f"{name}.toml")
        files[-1].write_text(CARD.format(factory=factory))
    return card_files(files)


@pytest.fixture(scope="session")
def loader(tiny_cards: dict[str, str]) -> ServiceLoader:
    """The two models, captured once for all tests of a process."""
    return ServiceLoader(tiny_cards)


@pytest.fixture(scope="session")
def tiny(tiny_cards: dict[str, str]) -> Scenario:
    """Slow processors and a narrow band, so that small models take several slots in every stage."""
    return Scenario(
        name="tiny",
        services=tuple(profile(Path(file)) for file in tiny_cards.values()),
        num_devices=2,
        arrival_rate_hz=8.0,
        slots_per_period=5,
        cycles_per_mac=20.0,
        max_local_frequency_hz=1.5e8,
        max_edge_frequency_hz=2e8,
        bandwidth_hz=2e5,
        energy_coefficient=1e-25,
        local_energy_weight=1e12,
    )


def write_joint_run(folder: Path) -> Path:
    """Write a run folder of the joint baseline, which sets frequencies and powers itself; untrained."""
    record = {"schema": SCHEMA, "settings": TrainingSettings.for_algorithm("ppo").record()}
    (folder / RUN_FILE).write_text(json.dumps(record), encoding="utf-8")
    sizes = (10, 8, 8, 5)
    rng = np.random.default_rng(0)
    weights = {}
    for layer in range(3):
        weights[f"layer.{layer}.weight"] = rng.normal(size=(sizes[layer + 1], sizes[layer])).astype(np.float32)
        weights[f"layer.{layer}.bias"] = np.zeros(sizes[layer + 1], np.float32)
    save_file(weights, folder / POLICY_FILE)
    return folder
