"""What a release holds: one version everywhere, the typing marker and the data in both archives, a citation."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import splitinfer
from splitinfer.cli.main import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both archives of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


def test_the_version_stands_in_one_place(dist: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "splitinfer", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout == f"splitinfer {splitinfer.__version__}\n"
    assert {path.name for path in dist.iterdir()} == {
        f"splitinfer-{splitinfer.__version__}-py3-none-any.whl",
        f"splitinfer-{splitinfer.__version__}.tar.gz",
    }
    literal = re.compile(rf"""["']{re.escape(splitinfer.__version__)}["']""")
    sources = [ROOT / "pyproject.toml", *(ROOT / "splitinfer").rglob("*.py")]
    assert [path.name for path in sources if literal.search(path.read_text())] == ["__init__.py"]


def test_the_wheel_holds_the_marker_of_types_and_all_data(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    data = [name for name in tracked if name.split("/")[0] in ("models", "profiles", "devices")]
    own = [name for name in tracked if name.startswith("splitinfer/")]
    assert "splitinfer/py.typed" in own
    assert len(data) > 20
    assert {*own, *(f"splitinfer/_data/{name}" for name in data)} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_the_sdist_holds_what_the_wheel_is_built_from_and_the_tests(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    missing = {name for name in tracked if not name.startswith((".ci/", ".git"))} - names
    assert not missing


def test_the_service_unit_gives_options_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "deploy" / "splitinfer-edge.service").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^ExecStart=(.+)$", text, flags=re.MULTILINE)
    program, verb, *arguments = command.split()
    assert (Path(program).name, verb) == ("splitinfer", "serve")
    assert main(["serve", "--help"]) == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    given = [argument for argument in arguments if argument.startswith("--")]
    assert len(given) > 5
    assert set(given) <= known


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == splitinfer.__version__
    assert citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert paper["title"].startswith("Energy Optimization of Multitask DNN Inference in MEC-Assisted XR Devices")
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Sun", "Qiu", "Pan", "Xu", "Zhang", "Wang", "Han"]
