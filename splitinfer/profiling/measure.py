"""``profile``: from a model to its table of MACs, crossing tensors and, where asked for, latencies per cut."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitinfer.errors import CaptureError, InputError
from splitinfer.profiling.profile import CutRecord, LatencyRecord, Profile, TensorRecord, WeightsRecord

if TYPE_CHECKING:
    import torch

    from splitinfer.graph import SplitModel, TensorSpec
    from splitinfer.models import ModelCard
    from splitinfer.models.card import ImageSize
    from splitinfer.profiling.latency import LatencySettings

Progress = Callable[[int, int], None]


def profile(
    model: str | Path | ModelCard | torch.nn.Module,
    inputs: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
    *,
    latency: bool | LatencySettings = False,
    batch: int = 1,
    input_size: ImageSize | None = None,
    threads: int | None = None,
    weights: str | Path | None = None,
    name: str | None = None,
    engine: str = "torch",
    progress: Progress | None = None,
) -> Profile:
    """Measure c^k and d^k of a model at one input size, and the latency of head and tail at every cut.

    Args:
        model: a model card or its name, ``"package.module:factory"``, the path of a card file, or a module.
        inputs: example inputs of a module; a card brings its own.
        kwargs: likewise, by keyword.
        latency: also measure latencies on this machine, with the default settings or the given ones.
        batch: size of the leading dimension of the card's inputs.
        input_size: height and width in pixels (one number for a square) instead of the card's.
        threads: threads of the latency measurement, instead of the settings' one.
        weights: a torchvision weight enum or a file, instead of the card's; matters for latency only.
        name: what to call the model in the profile.
        engine: what computes halves while latencies are measured.
        progress: called with (measurements done, measurements to do).

    Raises:
        InputError: no such model, or inputs that do not fit.
        CaptureError: the model cannot be captured.
    """
    split = _capture(model, inputs, kwargs, batch, input_size, weights, name, engine, with_values=bool(latency))
    latencies: list[tuple[LatencyRecord, LatencyRecord]] | None = None
    host: dict[str, Any] | None = None
    if latency:
        from splitinfer.profiling.latency import LatencySettings, describe_host, measure_latency

        settings = latency if isinstance(latency, LatencySettings) else LatencySettings()
        settings = settings if threads is None else settings.replace(threads=threads)
        latencies = measure_latency(split, settings, progress=progress)
        host = describe_host(settings) | {"engine": engine}
    return _to_profile(split, latencies, host)


def profile_named_in_file(name: str) -> Profile:
    """Measure a model whose name stands in a file, which may come from elsewhere.

    Raises:
        InputError: as ``profile``, or it is a factory that a file may not name.
    """
    from splitinfer.models import load_card

    return profile(load_card(name, in_file=True))


def _capture(
    model: str | Path | ModelCard | torch.nn.Module,
    inputs: tuple[Any, ...] | None,
    kwargs: dict[str, Any] | None,
    batch: int,
    input_size: ImageSize | None,
    weights: str | Path | None,
    name: str | None,
    engine: str,
    *,
    with_values: bool,
) -> SplitModel:
    """Capture the model; where no latency is measured, without values in the weights and without folding."""
    import torch

    from splitinfer.graph import SplitModel
    from splitinfer.models import load_card, load_model
    from splitinfer.models.card import inputs_explained
    from splitinfer.models.loading import load_structure

    if isinstance(model, torch.nn.Module):
        if inputs is None:
            raise InputError("profile of a module needs its inputs, for example profile(model, (image,))")
        if weights is not None or input_size is not None or batch != 1:
            raise InputError("weights, batch and input_size go with a model card; a module comes with its inputs")
        return SplitModel.capture(model, inputs, kwargs, optimize=with_values, name=name, engine=engine)
    if inputs is not None or kwargs:
        raise InputError("inputs go with a module; a model card brings its own")
    card = load_card(model) if isinstance(model, (str, Path)) else model
    name = name or card.name
    examples = card.example_inputs(batch=batch, input_size=input_size)
    with inputs_explained(card):
        if with_values or weights is not None:
            return SplitModel.capture(
                load_model(card, weights=weights), examples, optimize=with_values, name=name, engine=engine
            )
        structure = load_structure(card)
        if any(parameter.is_meta for parameter in structure.parameters()):
            shapes = tuple(tensor.to("meta") for tensor in examples)
            # Some models make tensors on a fixed device while they run; those need real ones to be captured.
            with contextlib.suppress(CaptureError):
                return SplitModel.capture(structure, shapes, optimize=False, name=name)
            structure = load_model(card)
        return SplitModel.capture(structure, examples, optimize=False, name=name)


def _to_profile(
    split: SplitModel, latencies: list[tuple[LatencyRecord, LatencyRecord]] | None, host: dict[str, Any] | None
) -> Profile:
    cuts = tuple(
        CutRecord(
            index=cut.index,
            name=cut.name,
            output_shape=cut.output_shape,
            macs_before=cut.macs_before,
            crossing=_records(cut.crossing),
            head_latency=latencies[place][0] if latencies is not None else None,
            tail_latency=latencies[place][1] if latencies is not None else None,
            head_weights=WeightsRecord(*head),
            tail_weights=WeightsRecord(*tail),
        )
        for place, cut in enumerate((*split.cuts, *split.set_cuts))
        for head, tail in (split.half_weights(cut.index),)
    )
    return Profile(
        model=split.name,
        inputs=_records(split.inputs),
        parameters=split.num_parameters,
        total_macs=split.total_macs,
        cuts=cuts[: len(split.cuts)],
        uncounted_ops=dict(split.uncounted_ops),
        latency_host=host,
        outputs=_records(split.outputs),
        set_cuts=cuts[len(split.cuts) :],
    )


def _records(specs: tuple[TensorSpec, ...]) -> tuple[TensorRecord, ...]:
    return tuple(TensorRecord(spec.name, spec.shape, str(spec.dtype).removeprefix("torch.")) for spec in specs)
