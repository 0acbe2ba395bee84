"""What a release holds: one version everywhere, the typing marker and the data in both archives, a citation."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import splitinfer
from splitinfer.cli.main import main
from splitinfer.runtime import ClientSettings, EdgeClient
from splitinfer.runtime.certificates import write_certificates
from splitinfer.runtime.security import ClientSecurity

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


def test_the_containers_command_serves_over_tls_and_its_files_are_there(tmp_path: Path) -> None:
    lines = (ROOT / "deploy" / "Containerfile").read_text().splitlines()
    program, *verb = json.loads(
        next(line for line in lines if line.startswith("ENTRYPOINT")).removeprefix("ENTRYPOINT")
    )
    arguments = json.loads(next(line for line in lines if line.startswith("CMD")).removeprefix("CMD"))
    write_certificates(tmp_path, ["localhost"], devices=1)
    given = [argument.replace("/certs", str(tmp_path)) for argument in arguments]
    given = ["0" if argument == "50051" else "127.0.0.1" if argument == "0.0.0.0" else argument for argument in given]
    given[given.index("--warm")] = "--threads=1"  # compiling every tail takes its time
    assert Path(program).name == "splitinfer"
    with subprocess.Popen(
        [sys.executable, "-m", "splitinfer", *verb, *given], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = re.search(r":(\d+) ", server.stdout.readline())
            assert port is not None
            files = (tmp_path / name for name in ("ca.crt", "device-0.crt", "device-0.key"))
            settings = ClientSettings(security=ClientSecurity(*map(str, files)))
            with EdgeClient(f"localhost:{port[1]}", settings) as client:
                assert list(client.describe().models) == ["resnet18"]
        finally:
            # As the terminal does that it was started from; under nohup that is ignored, and rightly.
            hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
            server.send_signal(signal.SIGHUP if hangup else signal.SIGTERM)
            server.communicate()
    assert server.returncode == 0
    kept = (ROOT / "deploy" / "Containerfile.dockerignore").read_text().split()
    assert all((ROOT / name[1:]).exists() for name in kept if name.startswith("!"))
    used = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "splitinfer", "models", "profiles", "devices"}
    assert {name[1:] for name in kept if name.startswith("!")} == used, "what a wheel is built from"


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == splitinfer.__version__
    assert citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert paper["title"].startswith("Energy Optimization of Multitask DNN Inference in MEC-Assisted XR Devices")
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Sun", "Qiu", "Pan", "Xu", "Zhang", "Wang", "Han"]
