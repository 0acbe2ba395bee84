"""Every code block and command of README and the documentation runs, or says in a comment before it why it does not.

A fenced block has a language. ``title="FILE"`` makes it a file of the page's folder; ``bash`` blocks run first, in
order, then all ``python`` blocks as one program; ``toml`` is read; ``text`` is output or a formula. A comment right
before a block, ``<!-- not run: REASON -->``, keeps it from being run, and one that begins with ``<!-- bash`` or
``<!-- python`` holds what a reader has done already. Each page has a folder of its own with a picture, ``photo.jpg``.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from splitinfer.cli.main import verbs
from splitinfer.energy.card import load_device
from splitinfer.experiments.advise import advise
from splitinfer.models.photos import shipped_photo
from splitinfer.simulation import Scenario
from splitinfer.simulation.services import profile_of
from splitinfer.wire.codecs import CODECS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^>]+?) -->\n+)?```(?P<info>[^\n]*)\n(?P<body>.*?)^```$"
    r"|^<!-- (?P<hidden>bash|python)\n(?P<assumed>.*?)^-->$",
    flags=re.MULTILINE | re.DOTALL,
)
PUBLIC = [
    "splitinfer",
    *(
        f"splitinfer.{name}"
        for name in (
            *("energy", "graph", "learning", "models", "profiling", "runtime", "runtime.loop", "scheduling"),
            *("simulation", "wire"),
        )
    ),
]
FILES = {"python", "toml", "csv", "ini", "yaml", "text"}
# A command outside a fence would be run by nobody.
LOOSE = re.compile(r"^ {4,}(splitinfer|python -m|pip install|make) ", flags=re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    language: str
    title: str | None
    body: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """Return a page's blocks in order."""
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["hidden"]:
            found.append(Block(match["hidden"], None, match["assumed"], None))
            continue
        language, _, rest = match["info"].partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        found.append(Block(language, title[1] if title else None, match["body"], match["reason"]))
    return found


def name(page: Path) -> str:
    """Return what a test calls a page."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * sum(1 for block in BLOCK.finditer(text) if block["info"] is not None)
    for block in blocks(page):
        assert block.language in FILES | {"bash"}, f"{block.language!r}: {block.body[:60]}"
        assert block.reason is None or len(block.reason) > 5
        if block.language == "toml":
            tomllib.loads(block.body)
        if block.language == "python":
            compile(block.body, name(page), "exec", dont_inherit=True)
    loose = LOOSE.search(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    assert loose is None, f"a command outside a block: {loose[0] if loose else ''}"


def runs(page: Path) -> bool:
    """Return whether something of a page is run."""
    return any(b.language in ("bash", "python") and not b.reason and not b.title for b in blocks(page))


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    shutil.copy(shipped_photo(), tmp_path / "photo.jpg")
    program = []
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for block in blocks(page):
        body = block.body.replace("50051", port)
        if block.reason:
            continue
        if block.title:
            (tmp_path / block.title).write_text(body, encoding="utf-8")
        elif block.language == "bash":
            script.append(body)
        elif block.language == "python":
            program.append(body)
    if program:
        (tmp_path / "page_blocks.py").write_text("\n".join(program), encoding="utf-8")
        script.append("python page_blocks.py")
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_the_picture_of_cuts_over_bandwidth_is_drawn_from_what_advise_says() -> None:
    picture = (ROOT / "docs" / "cuts_over_bandwidth.svg").read_text(encoding="utf-8")
    lines = re.findall(r'data-model="(\w+)" data-changes="([^"]+)" d="([^"]+)"', picture)
    assert len(lines) == 3
    for model, changes, path in lines:
        found = advise(
            profile_of(model),
            load_device("paper"),
            bandwidth_bps=1e6,
            rtt_s=0.01,
            edge_macs_per_s=160e9,
            codecs=[codec for codec in CODECS if codec.name == "raw"],
            files=False,
        ).changes
        assert changes == " ".join(f"{float(f'{at / 1e6:.3g}'):g}:{cut}" for at, cut in found)
        drawn = [int(x) for x in re.findall(r"H(\d+)V", path)]
        assert drawn == pytest.approx([70 + 150 * math.log10(at / 1e6) for at, _ in found], abs=1)


def test_every_verb_is_in_the_table_of_verbs() -> None:
    table = (ROOT / "docs" / "verbs.md").read_text(encoding="utf-8")
    assert [verb for verb in verbs() if not re.search(rf"`(splitinfer )?{verb}\b", table)] == []


def test_every_public_name_is_in_the_reference() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: splitinfer\.(?:\w+\.)*(\w+)$", pages, flags=re.MULTILINE))
    numbers = {"__version__", "MAX_PROTOCOL_VERSION", "MIN_PROTOCOL_VERSION"}
    by_module = {"SplitInferError", "local_energy_j", "transmission_energy_j"}  # whole modules are shown
    for package in PUBLIC:
        missing = set(import_module(package).__all__) - shown - numbers - by_module
        assert not missing, f"{package}: {sorted(missing)}"


def test_the_site_builds_without_warnings_and_asks_nobody_else(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 35
    asked_for = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"([^\"]*)\"")
    addresses = {address for page in pages for address in asked_for.findall(page.read_text(encoding="utf-8"))}
    assert len(addresses) > 10
    assert [address for address in addresses if re.match(r"\w*:?//", address)] == []
    commands = (tmp_path / "reference" / "commands" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="{verb}"' in commands for verb in verbs())
    fields = (tmp_path / "reference" / "scenario" / "index.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in fields for name in Scenario.model_fields)


def test_nothing_refers_to_what_a_reader_does_not_have() -> None:
    elsewhere = re.compile(r"\bSPEC\b|\b[Ss]ection \d|\berrat(?:a|um) \d|\bthe issue\b|\bREVIEW\b|\bF-?\d{2}\b")
    package = [path for path in (ROOT / "splitinfer").rglob("*.py") if "_pb2" not in path.name]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in [*package, *PAGES, *(ROOT / "examples").rglob("*.py")]
        for match in elsewhere.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_pages_are_held_to_this() -> None:
    assert sum(map(runs, PAGES)) >= 10
