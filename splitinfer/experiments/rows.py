"""Results as tidy CSV files: a row per simulated run, and a row per point of a training curve."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splitinfer.errors import InputError
from splitinfer.experiments.jobs import Job, Measured
from splitinfer.experiments.sweep import Sweep
from splitinfer.files import replacing
from splitinfer.learning.run_folder import CURVE_FILE

Row = dict[str, Any]
"""One line of a CSV by its columns: numbers, ``stable`` as bool, None where a cell is empty."""

_WORDS = ("figure", "field", "policy")
_WHOLE = ("training_seed", "seed", "slots", "arrived", "finished")


def rows_of(sweep: Sweep, value: float | None, job: Job, runs: Sequence[Measured]) -> list[Row]:
    """Return the rows of one job at one point; shares of cuts get a column per service."""
    rows = []
    for run in runs:
        plain = {name: figure for name, figure in run.items() if name != "cut_share_by_service"}
        shares = {f"cut_share_{n}": share for n, share in enumerate(run["cut_share_by_service"])}
        rows.append(
            {"figure": sweep.figure, "field": sweep.field, "value": value, "policy": job.policy}
            | {"training_seed": job.training_seed}
            | plain
            | shares
        )
    return rows


def curve_of(job: Job, folder: Path) -> list[Row]:
    """Return the training curve that a run folder holds."""
    with (folder / CURVE_FILE).open(newline="", encoding="utf-8") as file:
        return [
            {"policy": job.policy, "training_seed": job.training_seed}
            | {"slots": int(row["slots"])}
            | {name: float(row[name]) for name in ("energy_j", "latency_s", "reward")}
            for row in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows under the columns of all of them, in the order in which these first occur."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[Row]:
    """Read rows back.

    Raises:
        InputError: the file cannot be read, or a cell is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: _cell(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no table of results ({error})") from None


def _cell(name: str, text: str) -> Any:
    if not text:
        return None
    if name in _WORDS:
        return text
    if name == "stable":
        return text == "True"
    return int(text) if name in _WHOLE else float(text)
