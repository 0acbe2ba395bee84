"""Code of the user's own, named as ``package.module:attribute``: imported, called, and its failures told in one line.

Importing a module runs it. Nothing here is for names that come from strangers.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
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
        InputError: there is none, importing it fails, or it is Python's own.
    """
    if name.partition(".")[0] in sys.stdlib_module_names:  # os:system is nobody's model
        raise InputError(f"{what}: {name} is a module of Python itself, which makes no models, policies or rules")
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


def is_own(name: str) -> bool:
    """Whether a name has the form ``package.module:Class`` or ``package.module:Class(k=3)``."""
    return _OWN.fullmatch(name) is not None


def own_source_digest(name: str, what: str) -> str:
    """Return a hash of the source file of a user's own class, which is part of what its results depend on.

    Raises:
        InputError: as ``make_own``.
    """
    file = getattr(import_user_module(_parts(name, what)["module"], what), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes() if file else b"").hexdigest()


def make_own(name: str, what: str) -> Any:
    """Return a new object of a user's own class, or what the user's own function returns.

    Args:
        name: ``package.module:Class``, with literal arguments where it needs some: ``module:Class(k=3)``.
        what: the field or option, the start of an error's line.

    Raises:
        InputError: the name has another form, there is no such class, or making the object fails.
    """
    match = _parts(name, what)
    make = find_attribute(match["module"], match["attribute"], what, kind="class")
    args, kwargs = _literals(name, match["arguments"] or "", what)
    with user_code(f"{what}: {name}"):
        return make(*args, **kwargs)


_OWN = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_][\w.]*)(?:\((?P<arguments>.*)\))?")


def _parts(name: str, what: str) -> re.Match[str]:
    match = _OWN.fullmatch(name)
    if match is None:
        raise InputError(f"{what}: write package.module:Class or package.module:Class(k=3), not {name!r}")
    return match


def _literals(name: str, arguments: str, what: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        call = ast.parse(f"f({arguments})", mode="eval").body
        assert isinstance(call, ast.Call)
        assert all(keyword.arg for keyword in call.keywords)
        return (
            [ast.literal_eval(argument) for argument in call.args],
            {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords},
        )
    except (SyntaxError, ValueError, AssertionError):
        raise InputError(f"{what}: write module:Class(k=3) with numbers, strings and lists, not {name!r}") from None


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
