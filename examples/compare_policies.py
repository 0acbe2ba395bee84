"""Schedule one busy edge with four policies and see what each costs: energy, latency, and whether queues grow."""

import numpy as np

from splitinfer.scheduling import BestStaticCut, FixedCut, MyopicCut, RandomCut
from splitinfer.simulation import Scenario, simulate


def main(slots: int = 30_000) -> None:
    """Print one line per policy; 10 ms a slot."""
    scenario = Scenario.preset("busy")
    policies = {
        "all local": FixedCut([54, 53]),
        "all at the edge": FixedCut([0, 0]),
        "random": RandomCut(),
        "myopic": MyopicCut(),
        "best static": BestStaticCut(),
    }
    print(f"{scenario.num_devices} devices, services {scenario.services}, {slots} slots")
    for name, policy in policies.items():
        result = simulate(scenario, policy, slots=slots, seed=0)
        energy_mj = 1e3 * np.mean(np.asarray(result.energy_local_j) + np.asarray(result.energy_transmission_j))
        latency_s = np.mean(result.latency_s) if len(result.latency_s) else float("nan")
        stable = "stable" if result.stability.stable else "queues grow"
        print(f"{name:<16} {energy_mj:7.3f} mJ a slot  {latency_s:8.3f} s mean latency  {stable}")


if __name__ == "__main__":
    main()
