"""The tables of CONTRIBUTING and of the private interfaces, held to the sources."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "splitinfer"
HEAVY = frozenset(
    ["torch", "torchvision", "grpc", "numba", "cvxpy", "gymnasium", "stable_baselines3", "matplotlib", "typer", "rich"]
)
"""Packages whose import takes long or that not everybody has; a place has those that the table grants it."""

TREES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_pb2" not in path.name
}


def place_of(parts: tuple[str, ...]) -> str:
    """``runtime/loop`` for ``runtime.loop.hub``, ``radio.py`` for ``radio``, ``graph`` for ``graph.cuts``."""
    for length in (2, 1):
        if len(parts) >= length and PACKAGE.joinpath(*parts[:length]).is_dir():
            return "/".join(parts[:length]) if "/".join(parts[:length]) in ROWS else parts[0]
    return f"{parts[0]}.py" if parts else "__init__.py"


def table() -> dict[str, tuple[set[str], set[str]]]:
    """Place to (places it may import, heavy packages it may import), as CONTRIBUTING says."""
    rows = {}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for line in text[text.index("| place | is |") :].splitlines()[2:]:
        if not line.startswith("|"):
            break
        places, _, imports, heavy = (cell.strip() for cell in line.strip("|").split("|"))
        granted = {name.strip(" `") for name in imports.split(",")}, {name.strip(" `") for name in heavy.split(",")}
        for place in re.findall(r"`splitinfer/([^`]+)`", places):
            rows[place.rstrip("/")] = granted
    return rows


ROWS: dict[str, tuple[set[str], set[str]]] = {}
ROWS.update(table())


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, at the top or inside a function, but for type checkers alone."""
    hidden = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            path = PACKAGE.joinpath(*node.module.split(".")[1:])
            for alias in node.names:
                is_module = node.module.startswith("splitinfer") and (
                    (path / alias.name).is_dir() or (path / f"{alias.name}.py").is_file()
                )
                yield f"{node.module}.{alias.name}" if is_module else node.module


def test_every_module_has_a_row_and_imports_what_it_grants() -> None:
    wrong = []
    for path, tree in TREES.items():
        relative = path.relative_to(PACKAGE).with_suffix("").parts
        me = place_of(tuple(part for part in relative if part != "__init__"))
        if me not in ROWS:
            wrong.append(f"{path.relative_to(ROOT)}: no row of the table is its place ({me})")
            continue
        places, heavy = ROWS[me]
        for module in imports_of(tree):
            first = module.split(".")[0]
            if first != "splitinfer":
                if first in HEAVY and not {first, "all"} & heavy:
                    wrong.append(f"{path.relative_to(ROOT)} imports {first}")
                continue
            other = place_of(tuple(module.split(".")[1:]))
            if other not in (me, "errors.py", "__init__.py") and not {other, "all"} & places:
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not wrong


def test_arrows_point_one_way() -> None:
    order = list(ROWS)
    for place, (imports, _) in ROWS.items():
        for other in imports - {"all", "nothing", ""}:
            assert other in ROWS, f"{place} may import {other}, which has no row"
            assert order.index(other) < order.index(place), f"{other} stands below {place}"


def test_the_command_line_imports_inside_functions() -> None:
    light = {"errors.py", "threads.py", "cli", "policies.py", "runtime"}  # runtime: of the events alone
    for path, tree in TREES.items():
        if path.parent.name != "cli":
            continue
        body = ast.Module([n for n in tree.body if not isinstance(n, (ast.FunctionDef, ast.ClassDef))], [])  # type: ignore[attr-defined]
        for module in imports_of(body):
            if module.split(".")[0] == "splitinfer":
                assert place_of(tuple(module.split(".")[1:])) in light, f"{path.name} imports {module}"
            else:
                assert module.split(".")[0] not in HEAVY - {"typer"}, f"{path.name} imports {module}"


def private_uses() -> dict[str, set[str]]:
    """Private names that none of our own classes has, and imports from private modules, with where they are."""
    own = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                own.add(node.name)
            elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
                own.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    found = defaultdict(set)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Attribute) and node.attr not in own:
                names = [node.attr] if re.match(r"_[^_]", node.attr) or node.attr == "__mro__" else []
            elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("splitinfer"):
                if any(part.startswith("_") and part != "__future__" for part in node.module.split(".")):
                    names = [node.module]
                else:
                    names = [f"{node.module}.{a.name}" for a in node.names if a.name.startswith("_")]
            elif isinstance(node, ast.keyword) and node.arg and node.arg not in own and re.match(r"_[^_]", node.arg):
                names = [node.arg]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names if any(part.startswith("_") for part in a.name.split("."))]
            for name in names:
                found[name].add(path.name)
    for public in ("_asdict", "_exit", "_replace"):  # of os and of named tuples: documented, for all their underscore
        found.pop(public, None)
    return found


def test_every_private_interface_is_listed_with_its_canary() -> None:
    text = (ROOT / "docs" / "private_interfaces.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| `([^`]+)` \| [^|]+ \| `([^`]+)` \|$", text, flags=re.MULTILINE)
    listed = {name for name, _ in rows}
    shared = {"_convolution"}  # a rule of ours has the operator's name
    used = private_uses()
    assert set(used) - listed == set(), {name: used[name] for name in set(used) - listed}
    assert listed - set(used) - shared == set()
    for _, canary in rows:
        file, _, test = canary.partition("::")
        path = ROOT / "tests" / file
        assert path.is_file(), canary
        assert not test or f"def {test}(" in path.read_text(encoding="utf-8"), canary
