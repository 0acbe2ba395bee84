"""Benchmarks are run by hand; that each can at least be started is held here."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks

NAMES = [m.name for m in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.") if not m.name.endswith("__main__")]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_what_it_measures(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(name)
    if not hasattr(module, "main"):
        assert name.rpartition(".")[2] in ("faults",) or module.__doc__
        return
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out
