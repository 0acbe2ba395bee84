"""Whether this host is quick enough for a live run: a second of it, tried before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from splitinfer.errors import InputError
from splitinfer.runtime.loop.local_run import LocalProcesses
from splitinfer.runtime.loop.settings import LoopSettings

TRIAL_S = 1.0
"""Length of a trial, seconds of the scenario's time."""
MOST_OVERRUNS = 0.02
"""Share of slots that may overrun, and of heads and tails that may be late, where a host is called quick enough."""
LARGEST_SCALE = 32.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """What a short run on this host's processes found.

    Attributes:
        time_scale: wall-clock time per time of the scenario.
        overruns: share of slots, over devices and edge, whose work was done only after their end.
        late: share of heads and tails that were late.
    """

    time_scale: float
    overruns: float
    late: float

    @property
    def fits(self) -> bool:
        """Whether the host is quick enough."""
        return self.overruns <= MOST_OVERRUNS and self.late <= MOST_OVERRUNS

    def __str__(self) -> str:
        return f"{self.overruns:.0%} of slots overran and {self.late:.0%} of heads and tails were late"


def try_host(processes: LocalProcesses, policy: str, settings: LoopSettings) -> Trial:
    """Run a second of the scenario at the settings' time scale, after a shorter one that only warms up.

    Raises:
        RemoteError: a process is lost or silent.
    """
    slots = max(20, round(TRIAL_S / processes.scenario.slot_s))
    short = replace(settings, slots=slots // 4, patience_s=0.0)
    processes.run(policy, short)
    lateness = processes.run(policy, replace(short, slots=slots)).result(processes.scenario).lateness
    jobs = sum(one.jobs for one in lateness)
    return Trial(
        settings.time_scale,
        sum(one.slot_overruns for one in lateness) / (slots * len(lateness)),
        sum(one.late_jobs for one in lateness) / jobs if jobs else 0.0,
    )


def fit_time_scale(processes: LocalProcesses, policy: str, settings: LoopSettings, say: Say) -> LoopSettings:
    """Return the settings with the least time scale of 1, 2, 4, ... that this host is quick enough for.

    Raises:
        InputError: it is too slow for the largest.
        RemoteError: a process is lost or silent.
    """
    scale = 1.0
    while scale <= LARGEST_SCALE:
        tried = replace(settings, time_scale=scale)
        trial = try_host(processes, policy, tried)
        if trial.fits:
            say(f"time scale {scale:g}: {trial} in a trial of {TRIAL_S:g} s")
            return tried
        scale *= 2
    raise InputError(
        f"--time-scale auto: this host is too slow even at {LARGEST_SCALE:g} ({trial}); take fewer devices, "
        "or --patience-s, with which time stands still for late work"
    )


def warn_if_slow(processes: LocalProcesses, policy: str, settings: LoopSettings, say: Say) -> LoopSettings:
    """Say so where this host is not quick enough, and return the settings as they are.

    Raises:
        RemoteError: a process is lost or silent.
    """
    trial = try_host(processes, policy, settings)
    if not trial.fits:
        say(
            f"this host is too slow for time scale {settings.time_scale:g}: {trial} in a trial of {TRIAL_S:g} s; "
            "--time-scale auto finds one that fits"
        )
    return settings
