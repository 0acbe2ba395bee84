"""``reproduce --cuts``: the same figures where policies choose among fewer cuts."""

from __future__ import annotations

from splitinfer.experiments.reproduce import Plan
from splitinfer.experiments.sweep import load_sweep


def worlds(plan):
    sweep = plan.sweeps[0]
    return {job.policy: job.world for _, job in plan.jobs_of(sweep)}


def test_cut_sets_reach_every_policys_world_and_the_files_names():
    plans = {cuts: Plan((load_sweep("fig6"),), quick=True, cuts=cuts) for cuts in (None, "all", "blocks", "pareto")}
    sizes = {cuts: {len(world.choices[0][0]) for world in worlds(plan).values()} for cuts, plan in plans.items()}
    assert (sizes[None], sizes["all"], sizes["blocks"]) == ({55}, {55}, {19})
    assert 2 < min(sizes["pareto"]) < 19
    stems = {cuts: plan.stem(plan.sweeps[0]) for cuts, plan in plans.items()}
    assert len(set(stems.values())) == 4
    assert "cuts = blocks" in plans["blocks"].about_base(plans["blocks"].sweeps[0])


def test_the_price_of_time_stands_beside_the_papers_policies_with_its_own_allocation():
    allocations = {
        policy: world.allocation for policy, world in worlds(Plan((load_sweep("fig4"),), quick=True)).items()
    }
    assert allocations.pop("price") == "price"
    assert set(allocations.values()) == {"drift-plus-penalty"}
