"""The figure is written, and a place where it cannot be is refused before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from splitinfer import Profile
from splitinfer.errors import InputError
from splitinfer.profiling.plot import plot_profile
from splitinfer.profiling.shipped import shipped_profile_path
from tests.profiling.test_profile import by_hand


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_the_figure_is_an_image_with_something_on_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.png"
    plot_profile(Profile.load(shipped_profile_path(name)), path)
    with Image.open(path) as image:
        assert min(image.size) >= 600
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert len(colours) > 50


def test_latencies_get_a_panel_of_their_own(tmp_path: Path) -> None:
    plot_profile(by_hand(), tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text(encoding="utf-8")
    assert "<svg" in text
    plot_profile(Profile.load(shipped_profile_path("resnet18")), tmp_path / "q.svg")
    assert text.count('id="axes_') == 3
    assert (tmp_path / "q.svg").read_text(encoding="utf-8").count('id="axes_') == 2


def test_places_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.png"):
        plot_profile(by_hand(), tmp_path / "p.txt")
    with pytest.raises(InputError, match="there is no folder"):
        plot_profile(by_hand(), tmp_path / "absent" / "p.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        plot_profile(by_hand(), tmp_path / "taken.png")
