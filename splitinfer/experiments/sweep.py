"""Sweeps: files of this package that say what a figure is made of."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from splitinfer.errors import InputError, ScenarioError
from splitinfer.files import read_toml
from splitinfer.policies import POLICIES, is_own_policy
from splitinfer.simulation.fields import Count, Positive, Settings
from splitinfer.simulation.scenario import Scenario
from splitinfer.simulation.scenario_file import find_scenario

NUM_MODELS = "num_models"
"""A swept field that no scenario has: each device hosts the first so many of the sweep's ``models``."""


def _known_policy(name: str) -> str:
    if name not in POLICIES and not is_own_policy(name):
        raise ValueError(f"there are {', '.join(POLICIES)} and package.module:Class, not {name!r}")
    return name


Panel = Literal[
    "energy",
    "local energy",
    "transmission energy",
    "queues and cuts",
    "relative energy",
    "reward curve",
    "energy curve",
]
PolicyName = Annotated[str, AfterValidator(_known_policy)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class Effort(Settings):
    """How much is spent on each point.

    Attributes:
        training_slots: slots that every learned policy is trained for, all its environments together.
        training_seeds: a policy is trained once for each.
        evaluation_slots: length of each simulated run.
        evaluation_seeds: every policy is simulated on each; none of them is a training seed's world.
    """

    training_slots: Count
    training_seeds: Seeds
    evaluation_slots: Count
    evaluation_seeds: Seeds


class Sweep(Settings):
    """One figure: a world, what is swept, which policies are compared and what the paper found.

    Attributes:
        figure: ``"fig3"`` to ``"fig7"``.
        title: what is swept, in words.
        scenario: the preset or TOML file that the sweep changes.
        changes: fields of it that are different everywhere in the sweep.
        policy_changes: fields that are different for a policy: an allocation that goes with it.
        field: the scenario's field that is swept, ``"num_models"``, or None where nothing is.
        axis: label of the swept axis.
        unit: the axis counts in so many of the field's unit.
        log_axis: whether the axis is logarithmic.
        values: of the field, one per point.
        quick_values: those of ``--quick``.
        models: with ``"num_models"``: model cards, in the order in which they are added.
        model_cuts: their cuts under Fix-Cov.
        policies: what is compared.
        panels: what is drawn.
        paper_reduction_percent: LyaPPO's mean reduction of total energy against each baseline, as the paper says.
        full, quick: the effort of a whole run and of ``--quick``.

    Raises:
        ScenarioError: a field is wrong.
    """

    figure: str
    title: str
    scenario: str
    changes: dict[str, Any] = Field(default={})
    policy_changes: dict[PolicyName, dict[str, Any]] = Field(default={})
    field: str | None = None
    axis: str = ""
    unit: Positive = 1.0
    log_axis: bool = False
    values: tuple[Positive | Count, ...] = ()
    quick_values: tuple[Positive | Count, ...] = ()
    models: tuple[str, ...] = ()
    model_cuts: tuple[int, ...] = ()
    policies: Annotated[tuple[PolicyName, ...], Field(min_length=1)]
    panels: Annotated[tuple[Panel, ...], Field(min_length=1)]
    paper_reduction_percent: dict[PolicyName, float] = Field(default={})
    full: Effort
    quick: Effort

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.field is None:
            if self.values or self.quick_values:
                raise ScenarioError("values: there is no field that takes them")
            return self
        if self.field not in Scenario.model_fields and self.field != NUM_MODELS:
            raise ScenarioError(f"field: a scenario has no {self.field!r}")
        if not self.values or not set(self.quick_values) <= set(self.values):
            raise ScenarioError("quick_values: must be some of the values, of which there is at least one")
        if self.field == NUM_MODELS and not len(self.models) == len(self.model_cuts) >= max(self.values):
            raise ScenarioError("models: needs as many as the largest value, and as many model_cuts")
        return self

    def points(self, *, quick: bool = False) -> tuple[float | None, ...]:
        """Return the swept values; (None,) where nothing is swept."""
        return ((self.quick_values if quick else self.values) or (None,)) if self.field is not None else (None,)

    def base(self) -> Scenario:
        """Return the world that is swept, before any point's value.

        Raises:
            ScenarioError: a change does not fit the preset.
        """
        world = find_scenario(self.scenario)
        return world.replace(name=world.name, **self.changes)

    def world(self, base: Scenario, value: float | None) -> Scenario:
        """Return the scenario of one point.

        Args:
            base: the world that is changed.
            value: of the swept field.

        Raises:
            ScenarioError: the value does not fit the base.
        """
        if self.field is None or value is None:
            return base
        if self.field == NUM_MODELS:
            count = int(value)
            return base.replace(services=self.models[:count], fixed_cuts=self.model_cuts[:count])
        return base.replace(**{self.field: value})


def figure_names() -> list[str]:
    """Return the figures that there are sweeps of, sorted."""
    names = (entry.name for entry in files("splitinfer.experiments").joinpath("sweeps").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.startswith("fig") and name.endswith(".toml"))


def load_sweep(figure: str) -> Sweep:
    """Return the sweep of a figure, or of a file of the user's own.

    Args:
        figure: one of ``figure_names()``, or the path of a TOML file with the fields of ``Sweep``. What it does not say
            is as in the figures' ``common.toml``, but for ``changes``.

    Raises:
        InputError: there is none of that name, or a field is wrong.
    """
    common = _read("common")
    if figure.endswith(".toml"):
        path = Path(figure)
        try:
            own = {"figure": path.stem, "changes": {}} | read_toml(path)
        except OSError as error:
            raise InputError(f"figure: cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"figure: {path} is not TOML: {error}") from None
    elif figure in figure_names():
        own = _read(figure)
    else:
        raise InputError(
            f"figure: must be one of {', '.join([*figure_names(), 'all'])}, or a TOML file of your own, not {figure!r}"
        )
    efforts = {name: common[name] | dict(own.get(name, {})) for name in ("full", "quick")}
    values: dict[str, Any] = {"figure": figure} | common | own | efforts
    try:
        return Sweep(**values)
    except ScenarioError as error:
        raise InputError(f"{figure}: {error}") from None


def _read(name: str) -> dict[str, Any]:
    path = files("splitinfer.experiments").joinpath("sweeps", f"{name}.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))
