"""Run every benchmark in its own process and print one table of their ratios."""

from __future__ import annotations

import argparse
import json
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import benchmarks


def main(argv: list[str] | None = None) -> int:
    """Return 1 if a benchmark could not run; slow is not a failure."""
    names = sorted(
        module.name
        for module in pkgutil.iter_modules(benchmarks.__path__)
        if not module.name.startswith("_") and not module.ispkg
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run; all by default: {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every benchmark's result")
    options = parser.parse_args(argv)
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")

    results: dict[str, object] = {}
    failed: list[str] = []
    for name in options.names or names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", "--json"],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            results[name] = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None
        except (ValueError, IndexError):
            results[name] = None
        if results[name] is None:
            failed.append(name)
            print(done.stderr[-2000:], file=sys.stderr)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(results))
    else:
        _print_table(results)
    return 1 if failed else 0


def _print_table(results: dict[str, object]) -> None:
    for name, result in results.items():
        if not isinstance(result, dict):
            print(f"{name:<18} could not run")
            continue
        for key, value in result.get("ratios", {}).items():
            print(f"{name:<18} {key:<60} {value:>12.4g}")


if __name__ == "__main__":
    raise SystemExit(main())
