"""Schedule one busy edge with four policies and see what each costs: energy, latency, and whether queues grow."""

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
        stable = "stable" if result.stability.stable else "queues grow"
        energy_mj, latency_s = 1e3 * result.energy_j, result.latency_s.mean()
        print(f"{name:<16} {energy_mj:7.3f} mJ a slot  {latency_s:8.3f} s mean latency  {stable}")


if __name__ == "__main__":
    main()
