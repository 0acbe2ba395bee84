from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, ServerSettings
from splitinfer.runtime.loading import capture_card

CARD = """
source = "tests.runtime.small:{factory}"
seed = {seed}
[[inputs]]
shape = [3, 32, 32]
[preprocessing]
resize = 32
"""
FACTORIES = {"plain": "plain", "branchy": "Branchy", "fat": "Fat", "waiting": "Waiting", "broken": "Broken"}

# Another thread count than the tests', which run with one.
SERVER_THREADS = 2


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cards")
    paths = {}
    for name, factory in FACTORIES.items():
        paths[name] = folder / f"{name}.toml"
        paths[name].write_text(CARD.format(factory=factory, seed=0))
    return paths


@pytest.fixture(scope="session")
def models(cards: dict[str, Path]) -> dict[str, SplitModel]:
    return {name: capture_card(path) for name, path in cards.items()}


@pytest.fixture(scope="session")
def edge(cards: dict[str, Path]) -> Iterator[EdgeProcess]:
    """A server in its own process, with every model and the default limits."""
    with EdgeProcess([str(path) for path in cards.values()], ServerSettings(torch_threads=SERVER_THREADS)) as process:
        yield process


@pytest.fixture
def client(edge: EdgeProcess) -> Iterator[EdgeClient]:
    with EdgeClient(edge.address, ClientSettings(deadline_s=60)) as client:
        yield client
