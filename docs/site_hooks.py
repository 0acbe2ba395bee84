"""What ``make docs`` adds to the written pages: the help of every verb, and the fields of a scenario.

Nothing of it is kept in the repository: it is made anew from the package each time, and so cannot be out of date.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"reference/commands.md": commands_page, "reference/scenario.md": scenario_page}
    for path, page in pages.items():
        files.append(File.generated(config, path, content=page()))
    return files


def commands_page() -> str:
    """Return the help of every verb, as the command line prints it."""
    from splitinfer.cli.main import main, verbs

    def section(title: str, *arguments: str) -> Iterator[str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            main([*arguments, "--help"])
        yield f"## {title}\n\n```text\n{said.getvalue().strip()}\n```\n"

    text = [
        "# The command line\n",
        "A mistake is one line on standard error and exit code 2; a check that was asked for and does not hold is 1;",
        "an interruption is 130, SIGTERM 143. With `SPLITINFER_DEBUG=1` the traceback of an error comes before its",
        "line.\n",
        *section("splitinfer"),
    ]
    for verb in verbs():
        text += section(verb, verb)
    return "\n".join(text)


def scenario_page() -> str:
    """Return the table of a scenario's fields: name, unit, default, meaning."""
    from splitinfer.simulation.field_table import field_table

    text = [
        "# Scenario fields\n",
        "A scenario is a TOML file with any of these fields, a `Scenario(...)` in Python, or `--set FIELD=VALUE`. A",
        "value per service is one number for all, a list (the same on every device), or one list per device.",
        "`splitinfer scenario new FILE` writes a file with all of them.\n",
        "| field | unit | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for row in field_table():
        default = f"`{row.default}`" if row.default else ""
        text.append(f"| `{row.name}` | {row.unit} | {default} | {row.meaning.replace('``', '`')} |")
    return "\n".join(text) + "\n"
