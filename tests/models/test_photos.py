"""Pictures to run models on: one, a folder of them, or the one that every installation has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from splitinfer.errors import InputError
from splitinfer.models.photos import photos, shipped_photo


def test_one_picture_is_taken_like_a_folder_of_one(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    shutil.copy(shipped_photo(), picture)
    (tmp_path / "notes.txt").write_text("no picture")
    assert photos(picture) == photos(tmp_path) == [picture]
    assert photos() == [shipped_photo()]


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    for place, said in (
        (tmp_path, "has no picture"),
        (tmp_path / "notes.txt", "is no folder and no picture"),
        (tmp_path / "x", "no f"),
    ):
        with pytest.raises(InputError, match=said):
            photos(place)
