"""The models behind a scenario's services, with real inputs and the answers that the whole models give."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from splitinfer.errors import CheckFailedError, InputError, ScenarioError
from splitinfer.graph import SplitModel
from splitinfer.graph.engines import set_threads
from splitinfer.models import CaptureOptions, ModelCard, load_card
from splitinfer.models.pictures import MAX_PIXELS
from splitinfer.models.sources import inputs_of
from splitinfer.profiling.profile import Profile
from splitinfer.runtime.loading import capture_card
from splitinfer.runtime.verify import check_answer
from splitinfer.scheduling import pareto_cuts
from splitinfer.simulation.choices import Choice
from splitinfer.simulation.scenario import Scenario
from splitinfer.wire.codecs import RAW, Wire, codecs_named
from splitinfer.wire.torch_tensors import as_received, to_torch

_RANDOM_INPUTS = 4


@dataclass(frozen=True, eq=False)
class LiveService:
    """One service of a device.

    Attributes:
        split: the model.
        fingerprint: of the model.
        inputs: real inputs, which tasks take in turn.
        answers: what the whole model makes of each, as tensor leaves.
        choices: cuts, each with the codec in which it is sent; a task's "cut" is a place among them. By default all
            cuts, as they are.
        tolerance: of answers, relative to the largest magnitude; 0 asks for the same bits.
    """

    split: SplitModel
    fingerprint: str
    inputs: tuple[tuple[torch.Tensor, ...], ...] = ()
    answers: tuple[tuple[torch.Tensor, ...], ...] = ()
    choices: tuple[Choice, ...] = ()
    tolerance: float = 0.0
    _rounded: dict[tuple[int, int], tuple[torch.Tensor, ...]] = field(default_factory=dict, init=False)

    def at(self, place: int) -> Choice:
        """Return the cut and codec at a place among the choices."""
        return self.choices[place] if self.choices else Choice(place, "", 0.0)

    def fingerprint_at(self, cut: int) -> str:
        """Return what a request for a cut carries."""
        return self.split.fingerprint_at(cut)

    @property
    def last(self) -> int:
        """Place of the choice that keeps everything on the device."""
        return len(self.choices) - 1 if self.choices else self.split.num_cuts

    @property
    def name(self) -> str:
        """Of the model."""
        return self.split.name

    def with_tolerance(self, tolerance: float) -> LiveService:
        """The same, where the edge's engine and batches may differ by so much."""
        return replace(self, tolerance=tolerance)

    def run_head(self, place: int, turn: int) -> tuple[torch.Tensor, ...]:
        """Run the head on the input of a turn."""
        return self.split.run_head(self.at(place).cut, *self.inputs[turn % len(self.inputs)])

    def run_tail(self, place: int, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Run the tail here, on what would have crossed."""
        return self.split.run_tail_leaves(self.at(place).cut, tuple(tensors))

    def prepare_thread(self) -> None:
        # The number is global, but some libraries under torch keep one per thread.
        set_threads(torch.get_num_threads())

    def is_right(self, place: int, turn: int, leaves: Sequence[torch.Tensor | np.ndarray]) -> bool:
        """Whether an answer is the whole model's, or the tail's on what the codec leaves, to the tolerance."""
        tensors = tuple(to_torch(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves)
        try:
            expected = self._answer(place, turn % len(self.inputs))
            check_answer(tensors, expected, self.split.name, tolerance=max(self.tolerance, self.split.tolerance))
        except CheckFailedError:
            return False
        return True

    def _answer(self, place: int, which: int) -> tuple[torch.Tensor, ...]:
        codec = codecs_named([self.at(place).codec or RAW.name])[0]
        if codec.exact:
            return self.answers[which]
        if (place, which) not in self._rounded:
            received = as_received(self.run_head(place, which), Wire(codec=codec))
            self._rounded[place, which] = self.run_tail(place, received)
        return self._rounded[place, which]


class ServiceLoader:
    """Captures each model once, also where several services share it.

    Args:
        cards: card files by model name, for models that are no shipped cards.
        images: pictures for models that take one; others get random inputs.
        options: how models are captured and computed.
    """

    def __init__(
        self,
        cards: dict[str, str] | None = None,
        images: Sequence[Path] = (),
        options: CaptureOptions | None = None,
    ) -> None:
        self._cards = cards or {}
        self._refs: dict[str, str | None] = {}
        self._images = list(images)
        self._options = options
        self._captured: dict[str, tuple[ModelCard, SplitModel]] = {}
        self._with_inputs: dict[str, LiveService] = {}

    def models(self, scenario: Scenario) -> list[SplitModel]:
        """Return the models of all devices, each once.

        Raises:
            InputError: there is no card for a model.
            ScenarioError: a profile is not that of the model.
        """
        self._refs = scenario.model_refs()
        names = {profile.model: profile for device in scenario.profiles for profile in device}
        models = [self._capture(profile) for profile in names.values()]
        for device in range(scenario.num_devices):
            self._check_set_cuts(scenario, device)
        return models

    def services(self, scenario: Scenario, device: int) -> tuple[LiveService, ...]:
        """Return the services of a device, with inputs and answers.

        Raises:
            InputError, ScenarioError: as ``models``, or a picture cannot be read.
        """
        self._refs = scenario.model_refs()
        own = zip(scenario.profiles[device], scenario.choices[device], strict=True)
        self._check_set_cuts(scenario, device)
        return tuple(replace(self._service(profile), choices=choices) for profile, choices in own)

    def _service(self, profile: Profile) -> LiveService:
        service = self._with_inputs.get(profile.model)
        if service is None:
            split = self._capture(profile)
            inputs = self._inputs(self._captured[profile.model][0])
            last = split.num_cuts
            answers = tuple(tuple(split.run_head(last, *one)) for one in inputs)
            service = LiveService(split, split.fingerprint, inputs, answers)
            self._with_inputs[profile.model] = service
        return service

    def _inputs(self, card: ModelCard) -> tuple[tuple[torch.Tensor, ...], ...]:
        takes_pictures = card.preprocess_with is not None or (card.preprocessing is not None and len(card.inputs) == 1)
        if not takes_pictures or not self._images:  # answers are compared with the whole model's on these very inputs
            return tuple(card.example_inputs(seed=seed) for seed in range(_RANDOM_INPUTS))
        return tuple(inputs_of(card, image, max_pixels=MAX_PIXELS) for image in self._images)

    def _capture(self, profile: Profile) -> SplitModel:
        held = self._captured.get(profile.model)
        if held is None:
            ref = self._cards.get(profile.model) or self._refs.get(profile.model) or profile.model
            card = load_card(ref, in_file=True)
            held = card, capture_card(card, self._options)
            for k in range(held[1].num_cuts + 1):  # not in the slot that first needs the cut
                held[1].warm(k)
            if not held[1].compiles_quickly:  # seconds a cut: of those that most policies keep to
                _check_profile(profile, held[1])
                for k in map(int, pareto_cuts(profile.compute_ratio, profile.feature_ratio)):
                    with contextlib.suppress(Exception):  # a model that made-up inputs are not for
                        held[1].run_tail_leaves(k, held[1].trial_tensors(k, seed=0))
            self._captured[profile.model] = held
        split = held[1]
        _check_profile(profile, split)
        return split

    def _check_set_cuts(self, scenario: Scenario, device: int) -> None:
        """Compile the set cuts that may be chosen, which have to be the profile's."""
        for profile, choices in zip(scenario.profiles[device], scenario.choices[device], strict=True):
            split = self._capture(profile)
            for k in {one.cut for one in choices if one.cut > split.num_cuts}:
                if not split.is_set_cut(k) or split.cut(k).macs_before != profile.cut(k).macs_before:
                    raise ScenarioError(
                        f"services: the profile of {profile.model} has other set cuts than the model; profile it anew "
                        "with 'splitinfer profile'"
                    )
                split.warm(k)


def fingerprints(scenario: Scenario, models: Sequence[SplitModel]) -> list[list[str]]:
    """Return the fingerprint of every service's model, one list per device."""
    by_name = {split.name: split.fingerprint for split in models}
    try:
        return [[by_name[profile.model] for profile in device] for device in scenario.profiles]
    except KeyError as error:
        raise InputError(f"services: the card of {error} makes a model of another name") from None


def _check_profile(profile: Profile, split: SplitModel) -> None:
    """The schedule is made from the profile, so it has to be of this very model."""
    measured = [cut.macs_before for cut in profile.cuts]
    held = [cut.macs_before for cut in split.cuts]
    if measured != held:
        raise ScenarioError(
            f"services: the profile of {profile.model} has {len(measured) - 1} cuts and {measured[-1]:,} MACs, the "
            f"model {len(held) - 1} and {held[-1]:,}; profile it anew with 'splitinfer profile'"
        )
