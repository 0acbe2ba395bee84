"""What reports and plots say of cuts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitinfer.simulation import Scenario
    from splitinfer.simulation.records import FinishedTasks

_MOST_SHOWN = 3


def cuts_used(world: Scenario, tasks: FinishedTasks, device: int, service: int) -> str:
    """Return the cuts at which a service's tasks were done, with the codec where the policy chose one."""
    places = sorted({int(place) for place in tasks.cut[(tasks.device == device) & (tasks.service == service)]})
    names = [str(world.choices[device][service][place]) for place in places]
    return ", ".join(names) if len(names) <= _MOST_SHOWN else f"{len(names)} from {names[0]} to {names[-1]}"


def fullest_device(world: Scenario) -> tuple[list[str], list[int]]:
    """Return the services of the device that has most, and the last choice of each, for a plot's legend."""
    device = max(range(world.num_devices), key=lambda m: world.num_services[m])
    services = [profile.model for profile in world.profiles[device]]
    return services, world.num_cuts[device, : len(services)].tolist()
