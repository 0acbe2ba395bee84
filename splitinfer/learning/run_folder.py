"""What a training leaves behind, and how it is read back. Nothing is unpickled.

=====================  ================================================================================
``run.json``           schema, algorithm, settings, seed, versions of everything that matters, progress
``scenario.toml``      the scenario that was trained on (with many worlds: their family is in ``run.json``)
``policy.safetensors`` the actor's weights: all that is needed to decide
``curve.csv``          one row per update: slots, energy, latency, reward
``checkpoint.pt``      all weights and the optimiser's state; tensors and numbers only (``weights_only``)
``tensorboard/``       the same curves and the losses
=====================  ================================================================================
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from splitinfer.errors import InputError
from splitinfer.files import read_json, replacing
from splitinfer.learning.outlook import FEATURES, PAPERS
from splitinfer.learning.policies import FlatCutPolicy, JointPolicy, SharedCutPolicy
from splitinfer.learning.settings import DDPGSettings, JointPPOSettings, LyaPPOSettings, PaperSettings, TrainingSettings
from splitinfer.learning.shipped import SHIPPED_POLICY
from splitinfer.learning.weights import load_weights
from splitinfer.scheduling.policy import Policy

SCHEMA = 1
RUN_FILE = "run.json"
SCENARIO_FILE = "scenario.toml"
POLICY_FILE = "policy.safetensors"
CURVE_FILE = "curve.csv"
CHECKPOINT_FILE = "checkpoint.pt"
_PACKAGES = ("splitinfer", "torch", "stable-baselines3", "gymnasium", "numpy", "numba")


def load_policy(folder: str | Path) -> Policy:
    """Return a trained policy; it needs neither torch nor the extra ``learn``.

    Args:
        folder: what ``splitinfer train`` wrote; or ``"lyappo"``, the policy that comes with the package. A folder of
            that name is ``./lyappo``.

    Raises:
        InputError: the folder is no training run, is damaged, or comes from another version of the format.
    """
    return load_run(SHIPPED_POLICY if folder == "lyappo" else folder)


def load_run(folder: str | Path) -> Policy:
    """Return the policy of a training run, from its folder.

    Raises:
        InputError: as ``load_policy``.
    """
    folder = Path(folder)
    record = read_run(folder)
    weights = load_weights(folder / POLICY_FILE)
    settings = settings_of(record)
    services = None if record.get("services") is None else str(record["services"])  # older runs did not keep it
    if isinstance(settings, JointPPOSettings):
        return JointPolicy(weights, cuts=settings.candidates, services=services)
    if isinstance(settings, DDPGSettings):
        return FlatCutPolicy(weights, layout="rounded", cuts=settings.candidates, services=services, name="ddpg")
    if isinstance(settings, PaperSettings):
        return FlatCutPolicy(weights, cuts=settings.candidates, services=services, name=settings.name)
    assert isinstance(settings, LyaPPOSettings)
    if record.get("features") not in (None, list(FEATURES)):
        raise InputError(f"policy: {folder} learned from other features than this version's; train it again")
    return SharedCutPolicy(
        weights,
        energy_emphasis=settings.energy_emphasis,
        task_price=settings.task_price,
        allocation=str(record.get("allocation", PAPERS)),  # older runs know no other
    )


def read_run(folder: Path) -> dict[str, Any]:
    """Return the record of a run.

    Raises:
        InputError: as ``load_policy``.
    """
    try:
        record = read_json(folder / RUN_FILE)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"policy: {folder} is no training run (it has no {RUN_FILE})") from None
    except OSError as error:
        raise InputError(f"policy: cannot read {folder / RUN_FILE}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"policy: {folder / RUN_FILE} is damaged: {error}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or "settings" not in record:
        raise InputError(f"policy: {folder / RUN_FILE} is not of schema {SCHEMA}, the one this version reads")
    return record


def settings_of(record: dict[str, Any]) -> TrainingSettings:
    """Return the settings that a run was made with.

    Raises:
        InputError: as ``load_policy``.
    """
    if not isinstance(record["settings"], dict):
        raise InputError(f"{RUN_FILE}: settings: not a table")
    try:
        return TrainingSettings.from_record(record["settings"])
    except InputError as error:
        raise InputError(f"{RUN_FILE}: settings: {error}") from None


def write_run(
    folder: Path,
    settings: TrainingSettings,
    *,
    scenario: str,
    allocation: str,
    services: str | None,
    worlds: dict[str, Any] | None,
    slots_done: int,
    seconds: float,
    history: dict[str, Any] | None = None,
) -> None:
    """Write or renew the record of a run; ``history`` says how it started and which policy was kept.

    ``services`` is the digest of the scenario's services. ``worlds`` is the family that scenarios were drawn from,
    where there was not one scenario.
    """
    record = {
        "schema": SCHEMA,
        "algorithm": settings.algorithm,
        "scenario": scenario,
        "allocation": allocation,
        "services": services,
        "features": list(FEATURES) if isinstance(settings, LyaPPOSettings) else None,
        "worlds": worlds,
        "settings": settings.record(),
        "slots_done": slots_done,
        "training_seconds": round(seconds, 1),
        "history": history or {},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    }
    with replacing(folder / RUN_FILE) as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
