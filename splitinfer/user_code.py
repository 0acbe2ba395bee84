"""Code of the user's own, named as ``package.module:attribute``: imported, called, and its failures told in one line.

Names also stand in files (cards, scenarios, sweeps), and a file may come from elsewhere. What lies in the working
folder or on the user's own path is taken for the user's; of installed packages a name gets classes of the wanted kind,
not whatever function could be called with the file's arguments, unless ``SPLITINFER_TRUST_CODE`` says so. Python's own
modules make nothing that is wanted here.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from splitinfer.errors import InputError, SplitInferError

TRUST_VARIABLE = "SPLITINFER_TRUST_CODE"
"""Environment variable: at 1, names in files may mean any installed code. ``splitinfer --trust-code`` sets it."""

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


def find_attribute(
    module: str, attribute: str, what: str, *, kind: str, fits: Callable[[Any], bool] = lambda target: False
) -> Any:
    """Return a callable of a module; dots in the attribute's name go into classes.

    Args:
        module, attribute: its name.
        what: what it is for, the start of an error's line.
        kind: what errors call it.
        fits: whether a callable of an installed package is taken; it is not called for the user's own.

    Raises:
        InputError: there is no such module or callable, or it is code that a name does not get.
    """
    target: Any = import_user_module(module, what)
    for number, part in enumerate(attribute.split(".")):
        if number and isinstance(target, ModuleType):  # torch:os.system
            raise InputError(f"{what}: {target.__name__} is a module: write its name before the colon")
        target = getattr(target, part, None)
    if not callable(target):
        raise InputError(f"{what}: {module} has no {kind} {attribute!r}")
    homes = _homes(target, module)
    if any(home.partition(".")[0] in sys.stdlib_module_names for home in homes):
        raise InputError(
            f"{what}: {module}:{attribute} is Python's own ({homes[-1]}), which makes no models, policies or rules"
        )
    if any(map(_is_installed, homes)) and not fits(target) and os.environ.get(TRUST_VARIABLE, "0") in ("", "0"):
        raise InputError(
            f"{what}: {module}:{attribute} is no {kind} of yours but code of the installed package "
            f"{homes[-1].partition('.')[0]}, which a name in a file must not run; if you trust what names it: "
            "splitinfer --trust-code"
        )
    return target


def _homes(target: Any, module: str) -> list[str]:
    """Return the modules that something callable comes from; what a ``partial`` calls has one, too."""
    if isinstance(target, partial):
        return _homes(target.func, module)
    owner = getattr(target, "__self__", None)
    home = getattr(target, "__module__", None) or getattr(
        owner if isinstance(owner, type) else type(owner), "__module__", None
    )
    return [module, home] if isinstance(home, str) else [module]


def _is_installed(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:  # a part of a compiled module; or made at run time, as a notebook's __main__ is
        return "." in module and _is_installed(module.rpartition(".")[0])
    return any(Path(file).resolve().is_relative_to(root) for root in _installed_roots())


@cache
def _installed_roots() -> tuple[Path, ...]:
    paths = [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages(), str(_PACKAGE)]
    return tuple({Path(path).resolve() for path in paths})


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


def make_own(name: str, what: str, methods: Sequence[str]) -> Any:
    """Return a new object of a user's own class, or what the user's own function returns.

    Args:
        name: ``package.module:Class``, with literal arguments where it needs some: ``module:Class(k=3)``.
        what: the field or option, the start of an error's line.
        methods: of the objects that are wanted: a class of an installed package has them.

    Raises:
        InputError: the name has another form, there is no such class, or making the object fails.
    """
    match = _parts(name, what)

    def fits(target: Any) -> bool:
        return inspect.isclass(target) and all(callable(getattr(target, method, None)) for method in methods)

    make = find_attribute(match["module"], match["attribute"], what, kind="class", fits=fits)
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
