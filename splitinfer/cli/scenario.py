"""``splitinfer scenario``: scenario files to start from, and what can stand in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitinfer.errors import InputError


def scenario(
    action: Annotated[str, typer.Argument(metavar="new|fields", help="Write a file, or list the fields.")],
    file: Annotated[Path | None, typer.Argument(help="The file to write; it must not exist.")] = None,
    preset: Annotated[
        str | None, typer.Option("--from", metavar="PRESET|FILE", help="Start from this scenario.")
    ] = None,
) -> None:
    """Write a scenario file with every field, its default and its meaning; or list the fields.

    Example:
      splitinfer scenario new mine.toml
      splitinfer scenario new mine.toml --from busy
      splitinfer scenario fields
    """
    if action not in ("new", "fields"):
        raise InputError(f"scenario: write new FILE or fields, not {action!r}")
    if (action == "new") != (file is not None):
        raise InputError("scenario: new needs the file to write, fields takes none")
    from splitinfer.cli.output import print_table
    from splitinfer.simulation import find_scenario
    from splitinfer.simulation.field_table import field_table, write_template

    if file is None:
        rows = [[row.name, row.unit, row.default, row.meaning.replace("``", "")] for row in field_table()]
        columns = ["field", "unit", "default", "meaning"]
        print_table(columns, rows, left=columns)
        return
    start = None if preset is None else find_scenario(preset)
    check_new(file)
    write_template(file, start)
    print(f"wrote {file}; try it: splitinfer simulate --scenario {file}")


def check_new(file: Path) -> None:
    """Refuse to write a TOML file that is there, or whose name would not be taken for one.

    Raises:
        InputError: it is.
    """
    if file.suffix != ".toml":
        raise InputError(f"{file}: the name of the file must end in .toml")
    if file.exists():
        raise InputError(f"{file} is there already and is not overwritten")
