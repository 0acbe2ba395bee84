"""The state around a capture: one export at a time, no ambient mode of torch, evaluation mode, and no chatter."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import random
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import torch

# Modules that compute something else in training mode; a split model always computes what evaluation mode computes.
_MODE_DEPENDENT = (
    torch.nn.modules.batchnorm._BatchNorm,
    torch.nn.modules.dropout._DropoutNd,
)

# torch.export keeps its state in the process, so two at once spoil each other.
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def capturing(model: torch.nn.Module, notes: list[str]) -> Iterator[None]:
    """Capture in this block; what the user should know is added to ``notes``."""
    with _one_at_a_time, _without_modes(notes), _evaluation_mode(model, notes), _watched_random(notes), _quiet():
        collects = gc.isenabled()
        gc.disable()  # an export makes objects by the hundred thousand and drops few; collections cost a tenth of it
        try:
            yield
        finally:
            if collects:
                gc.enable()


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Compute in the tensors' own dtypes, as captured, whatever surrounds the block."""
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextlib.contextmanager
def _without_modes(notes: list[str]) -> Iterator[None]:
    if torch._C._is_any_autocast_enabled():
        notes.append(
            "was captured inside torch.autocast, which is left out of the split model; put autocast into the model's "
            "forward, or convert the model (model.bfloat16())"
        )
    with without_autocast(), torch.inference_mode(False), torch.no_grad():
        yield


@contextlib.contextmanager
def _evaluation_mode(model: torch.nn.Module, notes: list[str]) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    if any(isinstance(module, _MODE_DEPENDENT) for module in training):
        notes.append("is in training mode; it is captured as model.eval() computes")
    try:
        if training:
            # The module of an exported program cannot change its mode: it computes what it was exported with.
            with contextlib.suppress(NotImplementedError):
                model.eval()
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _watched_random(notes: list[str]) -> Iterator[None]:
    """Python's and numpy's random numbers are drawn once, while the model is captured; torch's are in the graph."""
    before = random.getstate(), _numpy_state()
    yield
    if (random.getstate(), _numpy_state()) != before:
        notes.append(
            "draws from Python's or numpy's random numbers in forward; the split model keeps those drawn at capture"
        )


def _numpy_state() -> tuple[bytes, int]:
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002 - the state that models draw from
    return np.asarray(keys).tobytes(), int(position)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch.export logs and warns about itself; what it refuses is raised and reported by us."""
    loggers = [logging.getLogger("torch"), logging.getLogger("torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        # torch prints the graph it had so far to stderr when it gives up.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
