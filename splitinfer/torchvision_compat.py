"""Import torchvision, also where its compiled operators do not load.

A torchvision wheel built against another torch (a CUDA wheel beside a CPU torch, say) cannot load its ``_C`` library,
and then ``import torchvision`` itself fails, because it attaches a rule to the operator ``torchvision::nms``, which
nobody has defined. No model that splitinfer profiles runs that operator. So where the library really does not load,
the two operators are declared by name, with no implementation: the import works, and calling them still fails.

Where the library loads, nothing is declared and torchvision is exactly what it is without this module.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_lock = threading.Lock()
# The declarations live as long as this object does.
_declared: list[object] = []


def import_torchvision() -> ModuleType:
    """Return the torchvision module with ``torchvision.models`` in it."""
    prepare_torchvision()
    import_module("torchvision.models")
    return sys.modules["torchvision"]


def prepare_torchvision() -> None:
    """Make sure that torchvision can be imported from here on, where it is installed."""
    with _lock:
        if "torchvision" not in sys.modules and not _compiled_operators_load():
            _declare_missing_operators()


def operators_are_declared() -> bool:
    """True where torchvision's compiled operators are absent and the names were declared here."""
    return bool(_declared)


def _compiled_operators_load() -> bool:
    """Load torchvision's compiled operators as it does itself on import; loading twice does no harm."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations or sys.platform == "win32":
        return True  # not installed, or a platform whose search path for libraries is torchvision's own matter
    finder = FileFinder(spec.submodule_search_locations[0], (ExtensionFileLoader, EXTENSION_SUFFIXES))
    library = finder.find_spec("_C")
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError):
        return False
    return True


def _declare_missing_operators() -> None:
    import torch

    if not _declared:
        fragment = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            fragment.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(fragment)
