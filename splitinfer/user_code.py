"""Code of the user's own, named as ``package.module:attribute``: imported, called, and its failures told in one line.

Importing a module runs it. Nothing here is for names that come from strangers.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from splitinfer.errors import InputError, SplitInferError

_PACKAGE = Path(__file__).parent


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turn whatever the block raises into one line that names the user's own file and line.

    Raises:
        InputError: the block raised; errors of the package's own family pass as they are.
    """
    try:
        yield
    except SplitInferError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{what} failed: {_said(error)}{_where(error)}") from error


def import_user_module(name: str, what: str) -> ModuleType:
    """Import a module, also from the working folder.

    Args:
        name: ``package.module``.
        what: what it is for, the start of an error's line.

    Raises:
        InputError: there is none, or importing it fails.
    """
    # A console script does not have the working folder on its path, and a user's module is usually there.
    here = os.fspath(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    with user_code(f"{what}: import of {name}"):
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                raise InputError(f"{what}: cannot import {name}: there is no module {error.name}") from None
            raise


def find_attribute(module: str, attribute: str, what: str, *, kind: str) -> Any:
    """Return a callable of a module; dots in the attribute's name go into classes. ``kind`` is what errors call it.

    Raises:
        InputError: there is no such module or callable.
    """
    target: Any = import_user_module(module, what)
    for part in attribute.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise InputError(f"{what}: {module} has no {kind} {attribute!r}")
    return target


def _said(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - an exception of the user's own class
        lines = []
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}:{error.lineno})"
    frames = list(traceback.extract_tb(error.__traceback__))
    own = [f for f in frames if not f.filename.startswith("<") and _PACKAGE not in Path(f.filename).parents]
    mine = [f for f in own if "site-packages" not in f.filename and f"{os.sep}lib{os.sep}python" not in f.filename]
    frames = mine or own
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
