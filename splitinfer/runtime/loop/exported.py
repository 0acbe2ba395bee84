"""A device's services from exported halves: real work, and the answers that the whole model gives, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitinfer.artifacts.head import ExportedHead
from splitinfer.artifacts.manifest import MANIFEST
from splitinfer.errors import InputError, ScenarioError
from splitinfer.profiling.profile import Profile
from splitinfer.simulation.choices import Choice
from splitinfer.simulation.scenario import Scenario
from splitinfer.wire.codecs import RAW, Wire, codecs_named
from splitinfer.wire.tensors import pack, unpack

EXPORT_TOLERANCE = 1e-4
"""Of answers against the exported whole model, relative to the largest magnitude: what ``export`` checks files to."""

_RANDOM_INPUTS = 4
Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class ExportedService:
    """One service of a device; a ``Service`` of the device's loop.

    Attributes:
        halves: by cut. Cut 0 needs no file, and the whole model is the two halves of any cut.
        inputs: which tasks take in turn.
        answers: what the whole model makes of each, as leaves.
        choices: cuts, each with the codec in which it is sent; a task's "cut" is a place among them.
        tolerance: of answers, relative to the largest magnitude.
    """

    halves: Mapping[int, ExportedHead]
    inputs: tuple[Arrays, ...]
    answers: tuple[Arrays, ...]
    choices: tuple[Choice, ...]
    tolerance: float = EXPORT_TOLERANCE
    _rounded: dict[tuple[int, int], Arrays] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """Of the model."""
        return self._any.manifest.model

    @property
    def fingerprint(self) -> str:
        """Of the model."""
        return self._any.manifest.fingerprint

    @property
    def last(self) -> int:
        """Place of the choice that keeps everything on the device."""
        return len(self.choices) - 1

    def at(self, place: int) -> Choice:
        """Return the cut and codec of a place."""
        return self.choices[place]

    def fingerprint_at(self, cut: int) -> str:
        """Return what a request for a cut carries."""
        return self.halves[cut].model.fingerprint if cut in self.halves else self.fingerprint

    @property
    def _any(self) -> ExportedHead:
        return next(iter(self.halves.values()))

    def with_tolerance(self, tolerance: float) -> ExportedService:
        """The same where the edge's answers may differ by so much; never less than what an export may."""
        return replace(self, tolerance=max(tolerance, EXPORT_TOLERANCE))

    def prepare_thread(self) -> None:
        """Nothing: a session has its own threads."""

    def run_head(self, place: int, turn: int) -> Arrays:
        """Run the head on the input of a turn; at K the whole model.

        Raises:
            InputError: the cut was not exported.
        """
        inputs, cut = self.inputs[turn % len(self.inputs)], self.at(place).cut
        if cut == 0:
            return inputs
        if cut == self._any.manifest.num_cuts:
            return whole(self._any, inputs)
        return tuple(self._half(cut)(*inputs))

    def run_tail(self, place: int, tensors: Sequence[Any]) -> Arrays:
        """Run the tail here, as leaves.

        Raises:
            InputError: the cut was not exported.
        """
        arrays, cut = tuple(map(np.asarray, tensors)), self.at(place).cut
        return whole(self._any, arrays) if cut == 0 else tuple(self._half(cut).run_tail(*arrays))

    def is_right(self, place: int, turn: int, leaves: Sequence[Any]) -> bool:
        """Whether an answer is the whole model's, or the tail's on what the codec leaves, to the tolerance."""
        expected = self._answer(place, turn % len(self.inputs))
        return len(leaves) == len(expected) and all(map(self._is_close, leaves, expected))

    def _is_close(self, got: NDArray[Any], want: NDArray[Any]) -> bool:
        if got.shape != want.shape or got.dtype != want.dtype:
            return False
        if want.dtype.kind != "f":
            return bool(np.array_equal(got, want))
        most = self.tolerance * float(np.abs(want, where=np.isfinite(want), out=np.zeros_like(want)).max(initial=0.0))
        return bool(np.allclose(got, want, rtol=0.0, atol=most, equal_nan=True))

    def _answer(self, place: int, which: int) -> Arrays:
        codec = codecs_named([self.at(place).codec or RAW.name])[0]
        if codec.exact:
            return self.answers[which]
        if (place, which) not in self._rounded:
            payload, wire = pack(self.run_head(place, which), codec), Wire(codec=codec)
            received = unpack(payload.headers, memoryview(b"".join(payload.buffers)), wire)
            self._rounded[place, which] = self.run_tail(place, received)
        return self._rounded[place, which]

    def _half(self, cut: int) -> ExportedHead:
        if cut not in self.halves:
            there = ", ".join(map(str, sorted({0, *self.halves, self._any.manifest.num_cuts})))
            raise InputError(
                f"heads: the edge chose cut {cut} of {self.name}, which was not exported; there are {there}. Export it "
                "too (--cuts pareto)"
            )
        return self.halves[cut]


def whole(halves: ExportedHead, inputs: Arrays) -> Arrays:
    """Return the leaves of the whole model's answer."""
    made = halves(*inputs)
    return tuple(made if halves.manifest.tail is None else halves.run_tail(*made))


def exported_services(
    scenario: Scenario, device: int, folders: Sequence[Path], *, images: Sequence[Path] = (), threads: int = 1
) -> tuple[ExportedService, ...]:
    """Return the services of a device.

    Args:
        scenario: the world.
        device: m.
        folders: that ``splitinfer export`` wrote, one for each model, with one cut or several.
        images: pictures for models that take one; others, and all without, get random inputs.
        threads: of one operation.

    Raises:
        InputError: a folder is none, is damaged, or there is none for a model.
        ScenarioError: a profile is not that of the model.
    """
    wanted = {profile.model: profile for profile in scenario.profiles[device]}
    held: dict[str, ExportedService] = {}
    for folder in folders:
        halves = _halves(folder, threads)
        manifest = next(iter(halves.values())).manifest
        if manifest.model in held:
            raise InputError(f"heads: {folder} holds {manifest.model} once more")
        if manifest.model not in wanted:
            raise InputError(f"heads: {folder} holds {manifest.model}; device {device} runs {', '.join(wanted)}")
        _check_profile(wanted[manifest.model], manifest.num_cuts)
        one = next(iter(halves.values()))
        inputs = _inputs(one, images)
        held[manifest.model] = ExportedService(halves, inputs, tuple(whole(one, own) for own in inputs), ())
    missing = [name for name in wanted if name not in held]
    if missing:
        raise InputError(f"heads: no folder for {missing[0]}, which device {device} runs; splitinfer export writes one")
    own = zip(scenario.profiles[device], scenario.choices[device], strict=True)
    return tuple(replace(held[profile.model], choices=choices) for profile, choices in own)


def _halves(folder: Path, threads: int) -> dict[int, ExportedHead]:
    """The halves in a folder, or in the folders of its cuts, by cut."""
    parts = [folder]
    if not (folder / MANIFEST).is_file() and folder.is_dir():
        parts = sorted(entry for entry in folder.iterdir() if (entry / MANIFEST).is_file()) or parts
    halves = [ExportedHead(part, threads=threads) for part in parts]
    for part, one in zip(parts, halves, strict=True):
        if (one.manifest.model, one.manifest.fingerprint) != (halves[0].manifest.model, halves[0].manifest.fingerprint):
            raise InputError(f"heads: {part} belongs to other weights than {parts[0]}; export all cuts at once")
    return {one.manifest.cut: one for one in halves}


def _inputs(halves: ExportedHead, images: Sequence[Path]) -> tuple[Arrays, ...]:
    manifest = halves.manifest
    if images and manifest.preprocessing is not None and len(manifest.inputs) == 1:
        return tuple((halves.preprocess(image),) for image in images)
    made = []
    for seed in range(_RANDOM_INPUTS):
        rng = np.random.default_rng(seed)
        made.append(
            tuple(
                np.asarray(
                    rng.standard_normal(one.shape) if one.dtype.startswith("float") else rng.integers(0, 2, one.shape)
                ).astype(one.dtype)
                for one in manifest.inputs
            )
        )
    return tuple(made)


def _check_profile(profile: Profile, num_cuts: int) -> None:
    """The edge compares the fingerprint; here the cuts at least have to be the same ones."""
    if profile.num_cuts != num_cuts:
        raise ScenarioError(
            f"services: the profile of {profile.model} has {profile.num_cuts} cuts, the exported model {num_cuts}; "
            "profile it anew with 'splitinfer profile'"
        )
