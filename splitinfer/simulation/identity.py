"""When two worlds are the same: by what they hold, not by how or where it is written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from splitinfer.errors import ScenarioError
from splitinfer.scheduling.rules import ALLOCATIONS
from splitinfer.simulation.arrivals import OwnArrivals
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.channel import OwnChannel
from splitinfer.simulation.scenario import Scenario
from splitinfer.user_code import own_source_digest


def describe(scenario: Scenario) -> dict[str, Any]:
    """Return all of a scenario that decides what happens in it, as JSON-ready values; its name does not.

    Services are told by what their profiles hold, trace files by their contents, and values per device or service are
    spread, so that every way to write a world gives the same description.

    Raises:
        ScenarioError: a trace file cannot be read.
    """
    record: dict[str, Any] = {}
    for field in type(scenario).model_fields:
        value = getattr(scenario, field)
        record[field] = value.model_dump() if isinstance(value, BaseModel) else value
        if isinstance(value, BaseModel) and "path" in record[field]:
            held = record[field]["path"]
            paths = [held] if isinstance(held, str) else held
            record[field]["path"] = [_contents(path, field) for path in paths]
        if isinstance(value, OwnArrivals | OwnChannel):
            record[field]["source"] = own_source_digest(value.name, field)
    del record["name"]
    if scenario.downlink_bps is None:
        del record["downlink_bps"]  # worlds without one are those that were before there was one
    else:
        record["answer_s"] = setting_of(scenario).answer_s.tolist()
        record["downlink_bps"] = np.broadcast_to(scenario.downlink_bps, scenario.num_devices).tolist()
    if scenario.drift is not None:
        # How a step spreads its values is the scenario's affair; what they come to is what counts.
        record["drift"]["steps"] = [step.at_s for step in scenario.drift.steps]
        record["drift"]["distances_m"] = scenario.drift_distances_m().tolist()
        record["drift"]["arrival_rate_hz"] = scenario.drift_rates_hz().tolist()
    targets_s = scenario.latency_targets_s()
    return record | {
        "services": [
            [
                (profile.total_macs, profile.compute_ratio.tolist(), profile.crossing_elements.tolist())
                for profile in own
            ]
            for own in scenario.profiles
        ],
        "choices": None
        if scenario.has_plain_cuts and scenario.codecs is None
        else [[[(one.cut, one.codec, one.bits) for one in own] for own in device] for device in scenario.choices],
        "device": [card.model_dump() for card in scenario.cards],
        "latency_price_w": setting_of(scenario).latency_price_w.tolist(),
        "allocation": scenario.allocation
        if scenario.allocation in ALLOCATIONS
        else [scenario.allocation, own_source_digest(scenario.allocation, "allocation")],
        "arrival_rate_hz": scenario.arrival_rates_hz().tolist(),
        "fixed_cuts": scenario.cut_array(scenario.fixed_cuts).tolist(),
        "p95_latency_s": None if targets_s is None else targets_s.tolist(),
    }


def digest(scenario: Scenario) -> str:
    """Return a hash of :func:`describe`: equal on two machines exactly if they would meet the same world.

    Raises:
        ScenarioError: a trace file cannot be read.
    """
    return hash_of(describe(scenario))


def hash_of(record: dict[str, Any]) -> str:
    """Return the SHA-256 of JSON-ready values, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _contents(path: str, field: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ScenarioError(f"{field}.path: cannot read {path}: {error.strerror}") from None
