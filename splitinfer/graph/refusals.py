"""Whatever a model's code or torch raises during a capture becomes one line: what, where, and what to do."""

from __future__ import annotations

import contextlib
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import fx

from splitinfer.errors import CaptureError, SplitInferError

_PACKAGE = Path(__file__).parents[1]
_TORCH = Path(torch.__file__).parent
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))

# What the error's text or type contains, and what to do then; the first that fits counts.
_ADVICE = (
    (
        r"Cache\b",
        "its output holds a cache, which is no tensor; capture it with use_cache=False, a keyword of the example or of "
        "the model's config",
    ),
    (
        r"not a known type|not supported or pytree|pytree.?flatten|in output",
        "return tensors in tuples, lists and dictionaries",
    ),
    (r"Unsupported input type", "put this value into the module, or give tensors, numbers and strings as inputs"),
    (
        r"data.dependent|DataDependent|\bvmap.*item",
        "the branch or size depends on the values of a tensor: use torch.where, torch.cond, or capture the part of the "
        "model before it (a submodule) and run the rest as ordinary code",
    ),
    (r"numpy", "keep the computation in torch operators"),
    (r"[Ii]nference tensor", "make or load its weights outside of torch.inference_mode()"),
)


@contextlib.contextmanager
def one_line(name: str) -> Iterator[None]:
    """Turn every exception of the block into a CaptureError about the model ``name``; ours pass as they are."""
    try:
        yield
    except SplitInferError:
        raise
    except (Exception, SystemExit) as error:
        raise CaptureError(explain(name, error)) from error


def explain(name: str, error: BaseException) -> str:
    """Say in one line what went wrong, at which line of the model's own code, and what to do."""
    reason = _first_line(error)
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame for frame in reversed(frames) if _is_users(frame.filename)), None)
    if line is None and frames and _PACKAGE in Path(frames[-1].filename).parents:
        return (
            f"cannot capture {name}: {reason}; this is a fault of splitinfer, please report it with the traceback that "
            "SPLITINFER_DEBUG=1 shows"
        )
    where = f" at {Path(line.filename).name}:{line.lineno} `{line.line}`" if line is not None else ""
    text = f"{type(error).__name__} {error_text(error)}"
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, text)), None)
    if advice is None and line is not None and frames[-1] is line:
        advice = "its own code fails with these example inputs"
    if advice is None:
        advice = "rewrite this line with operators that torch.export takes, or capture a submodule without it"
    return f"cannot capture {name}{where}: {reason.rstrip('.')}; {advice}"


def error_text(error: BaseException) -> str:
    """Return what an exception says, also if saying it fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception of the user's own class
        return ""


def source_line(node: fx.Node) -> str:
    """Return ``" at file.py:12 `code`"`` of the model's own line that made a node, "" where torch kept none."""
    lines = str(node.meta.get("stack_trace") or "").splitlines()
    for index in range(len(lines) - 1, -1, -1):
        found = re.match(r'\s*File "(.*)", line (\d+)', lines[index])
        if found and _is_users(found[1]):
            code = lines[index + 1].strip() if index + 1 < len(lines) else ""
            return f" at {Path(found[1]).name}:{found[2]} `{code}`"
    return ""


def _first_line(error: BaseException) -> str:
    first = next((line.strip() for line in error_text(error).splitlines() if line.strip()), "")
    kind = type(error).__name__
    if not first:
        return kind
    return first if isinstance(error, RuntimeError) else f"{kind}: {first}"


def _is_users(filename: str) -> bool:
    path = Path(filename)
    if filename.startswith("<") or _PACKAGE in path.parents or _TORCH in path.parents:
        return False
    return _STANDARD_LIBRARY not in path.parents or "site-packages" in path.parts
