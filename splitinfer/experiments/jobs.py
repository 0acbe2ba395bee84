"""Jobs of a sweep: one policy in one world, trained if it learns, simulated on every seed, and kept in a folder.

A job's name is a hash of all that decides its outcome, the package's own sources among it, so that a sweep which was
interrupted, or another figure that meets the same world, takes what is there, and nothing that other code computed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from os import getpid
from pathlib import Path
from typing import Any

import numpy as np

import splitinfer
from splitinfer.files import is_abandoned, read_json, replacing
from splitinfer.learning.run_folder import RUN_FILE, load_run
from splitinfer.learning.settings import TrainingSettings
from splitinfer.policies import POLICIES, is_own_policy, named_policy, own_policy_digest
from splitinfer.scheduling.policy import Policy
from splitinfer.simulation import Scenario, SimulationResult, simulate_batch
from splitinfer.simulation.identity import describe, hash_of

FORMAT = 1
"""Of results and of what their names are made from; another number makes all jobs run anew."""

Measured = dict[str, Any]
"""One simulated run: the columns of a row but for the figure and the point."""


@dataclass(frozen=True, eq=False)
class Job:
    """One policy in one world.

    Attributes:
        world: the scenario.
        policy: its name, one of ``POLICIES`` or the user's own ``package.module:Class``.
        training_slots, training_seed: of a learned policy, else None.
        seeds: of the simulated runs.
        slots: length of each.
    """

    world: Scenario
    policy: str
    training_slots: int | None
    training_seed: int | None
    seeds: tuple[int, ...]
    slots: int

    @cached_property
    def training(self) -> TrainingSettings | None:
        """How a learned policy is trained."""
        if self.training_slots is None or self.training_seed is None:
            return None
        return TrainingSettings.for_algorithm(self.policy, slots=self.training_slots, seed=self.training_seed)

    @cached_property
    def training_key(self) -> str:
        """Names what is trained, whatever it is evaluated on."""
        return hash_of(self._what())[:16]

    @cached_property
    def key(self) -> str:
        """Names the job: equal for equal outcomes, whatever figure they belong to."""
        return hash_of(self._what() | {"seeds": self.seeds, "slots": self.slots})[:16]

    @property
    def relative_cost(self) -> float:
        """About how long it takes, to begin with the longest."""
        cost = POLICIES[self.policy].relative_cost if self.policy in POLICIES else 0.1
        return cost * sum(self.world.num_services)

    def _what(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "splitinfer": splitinfer.__version__,
            "sources": sources_digest(),
            "world": describe(self.world),
            "policy": self.policy,
            "own code": own_policy_digest(self.policy) if is_own_policy(self.policy) else None,
            "training": None if self.training is None else asdict(self.training),
        }


class Store:
    """The folder of a reproduction: a small file per finished job, a run folder per trained policy."""

    def __init__(self, folder: Path) -> None:
        self._jobs = folder / "jobs"
        self._trained = folder / "trained"

    def prepare(self) -> None:
        """Make the folders."""
        self._jobs.mkdir(parents=True, exist_ok=True)
        self._trained.mkdir(exist_ok=True)
        for left in filter(is_abandoned, [*self._jobs.iterdir(), *self._trained.iterdir()]):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

    def run_folder(self, job: Job) -> Path:
        """Return where the job's trained policy lies."""
        return self._trained / f"{job.policy}-{job.training_key}"

    def read(self, job: Job) -> list[Measured] | None:
        """Return what the job measured, or None if it is not done."""
        try:
            record = read_json(self._file(job))
            runs: list[Measured] = record["runs"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if job.training is not None and not (self.run_folder(job) / RUN_FILE).is_file():
            return None
        return runs

    def write(self, job: Job, runs: list[Measured]) -> None:
        """Keep what the job measured, whole or not at all."""
        record = {"world": job.world.name, "policy": job.policy, "training_seed": job.training_seed, "runs": runs}
        with replacing(self._file(job)) as part:
            part.write_text(json.dumps(record) + "\n", encoding="utf-8")

    def clear(self, pid: int) -> None:
        """Remove what a process that is no more left unfinished."""
        for path in self._jobs.glob(f"*.{pid}.part.json"):
            path.unlink()
        for folder in self._trained.glob(f"*.{pid}.part"):
            shutil.rmtree(folder)

    def _file(self, job: Job) -> Path:
        return self._jobs / f"{re.sub('[^A-Za-z0-9_.-]+', '-', job.policy)}-{job.key}.json"


def run_job(job: Job, store: Store) -> list[Measured]:
    """Do a job, or as much of it as has not been done: train, simulate every seed in one batch, keep the result.

    Raises:
        SplitInferError: the world cannot be trained on or simulated.
    """
    known = store.read(job)
    if known is not None:
        return known
    policy = named_policy(job.policy, job.world) if job.training is None else _trained(job, job.training, store)
    results = simulate_batch(job.world, [policy] * len(job.seeds), seeds=job.seeds, slots=job.slots)
    runs = [measure(job.world, result) for result in results]
    store.write(job, runs)
    return runs


def _trained(job: Job, settings: TrainingSettings, store: Store) -> Policy:
    folder = store.run_folder(job)
    if not (folder / RUN_FILE).is_file():
        import torch

        from splitinfer.learning.training import train

        # The networks are small, and every core has a process of its own.
        torch.set_num_threads(1)
        # Begun anew after an interruption rather than resumed: a resumed training meets other worlds.
        unfinished = folder.with_name(f"{folder.name}.{getpid()}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            train(job.world, settings, unfinished)
            try:
                unfinished.rename(folder)
            except OSError:
                if not (folder / RUN_FILE).is_file():  # else another process was quicker
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return load_run(folder)


def measure(world: Scenario, result: SimulationResult) -> Measured:
    """Return the figures of one run.

    Energies are means per device and slot. Queues are sums over a device's services, averaged over slots and devices;
    scaled ones are divided by the scenario's scales, and ``qbar`` is their weighted sum as in (34). ``reward`` is (34)
    of these means, the sum over devices, and ``cost`` its negative per device. ``speed_local`` is the frequency at
    which local work was done, over F^l: the root of the energy per cycle over what a cycle takes at F^l.
    ``cut_share`` is the mean of k/K over finished tasks.
    """
    per_device = result.mean_queue.sum(axis=2).mean(axis=1)
    scales = np.array([world.queue_scale_cycles, world.queue_scale_bits, world.queue_scale_cycles])
    scaled = per_device / scales
    qbar = float(np.dot(world.queue_weights, scaled))
    cost = world.reward_energy_weight * float(result.energy_j) + world.reward_queue_weight * qbar
    busy_local = float(result.utilisation.local.mean())
    at_full_speed_j = busy_local * world.slot_s * world.energy_coefficient * world.max_local_frequency_hz**3
    tasks = result.tasks
    limits = world.num_cuts[tasks.device, tasks.service]
    shares = tasks.cut / limits
    by_service = [_mean(shares[tasks.service == n]) for n in range(max(world.num_services))]
    return {
        "seed": result.seed,
        "slots": result.slots,
        "energy_j": float(result.energy_j),
        "energy_local_j": float(result.energy_local_j),
        "energy_transmission_j": float(result.energy_transmission_j),
        "latency_mean_s": _mean(result.latency_s),
        "latency_p95_s": result.latency_percentile_s(95),
        "queue_local_cycles": float(per_device[0]),
        "queue_transmission_bits": float(per_device[1]),
        "queue_edge_cycles": float(per_device[2]),
        "queue_local_scaled": float(scaled[0]),
        "queue_transmission_scaled": float(scaled[1]),
        "queue_edge_scaled": float(scaled[2]),
        "qbar": qbar,
        "cost": cost,
        "reward": -cost * world.num_devices,
        "speed_local": float(np.sqrt(result.energy_local_j / at_full_speed_j)) if at_full_speed_j else float("nan"),
        "busy_local": busy_local,
        "busy_link": float(result.utilisation.link.mean()),
        "busy_edge": float(result.utilisation.edge),
        "stable": bool(result.stability.stable),
        "arrived": result.arrived,
        "finished": result.finished,
        "cut_share": _mean(shares),
        "cut_share_by_service": by_service,
    }


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Return each job once, the longest first."""
    return sorted({job.key: job for job in jobs}.values(), key=lambda job: -job.relative_cost)


def learns(policy: str) -> bool:
    """Whether a policy is trained."""
    return policy in POLICIES and POLICIES[policy].learned


@cache
def sources_digest(package: Path = Path(splitinfer.__file__).parent) -> str:
    """Return a hash of the package's own sources, but for those that only serve or talk to people."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in ("cli", "runtime"):
            digest.update(f"{name.as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
