"""What a policy chooses from: cuts, and codecs for what crosses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from splitinfer.errors import ScenarioError
from splitinfer.policies import named_policy
from splitinfer.profiling.profile import CodecRecord
from splitinfer.simulation import Scenario, simulate
from splitinfer.simulation.build import setting_of
from splitinfer.simulation.choices import choices_of
from splitinfer.simulation.identity import digest
from splitinfer.simulation.services import profile_of
from splitinfer.wire.codecs import codecs_named
from tests.simulation.small import BIG, small_scenario

RHO = 0.12


def offered(profile, codecs):
    """Every pair with its device work and bits, and everything on the device."""
    measured = {(one.cut, one.codec): one.bits for one in profile.codecs}
    for cut, name in product(profile.cuts[:-1], codecs):
        codec = codecs_named([name])[0]
        elements = cut.crossing_elements  # all float32 in these models
        work = RHO * cut.macs_before + elements * getattr(codec, "encode_cycles_per_element", 0.0)
        estimate = elements * codec.bits_per_element(np.dtype(np.float32))
        yield (cut.index, name), work, measured.get((cut.index, name), estimate)
    yield (profile.num_cuts, ""), RHO * profile.total_macs, 0.0


def test_bits_are_those_that_were_measured_and_else_estimates():
    coded = Scenario.preset("table2").replace(codecs="int4+zstd")
    profile = coded.profiles[0][0]
    measured = {one.cut: one.bits for one in profile.codecs if one.codec == "int4+zstd"}
    assert [one.bits for one in coded.choices[0][0][:-1]] == [measured[k] for k in range(profile.num_cuts)]
    assert all(bits < 4 * profile.cut(k).crossing_elements for k, bits in measured.items())
    np.testing.assert_allclose(setting_of(coded).transmission_bits[0, 0, :54], [measured[k] for k in range(54)])
    bare = coded.replace(services=(replace(profile, codecs=()), "mobilenet_v2"))
    assert [one.bits for one in bare.choices[0][0]] == [4.0 * cut.crossing_elements for cut in profile.cuts]
    assert digest(bare) != digest(coded)


@pytest.mark.parametrize("model", ["resnet50", "mobilenet_v2", "densenet121", "vit_b_16"])
@pytest.mark.parametrize("codecs", [("raw", "int8"), ("int2", "float16", "raw", "int8+zstd", "int4")])
def test_pairs_that_another_beats_are_left_out_and_no_others(model, codecs):
    profile = profile_of(model)
    pairs = {pair: (work, bits) for pair, work, bits in offered(profile, codecs)}
    kept = {(one.cut, one.codec) for one in choices_of(profile, cycles_per_mac=RHO, bits_per_element=8, codecs=codecs)}
    for pair, (work, bits) in pairs.items():
        beaten = any(w <= work and b <= bits and (w, b) != (work, bits) for w, b in pairs.values())
        if pair[1]:
            assert (pair in kept) != beaten or any(pairs[one] == (work, bits) for one in kept - {pair}), pair
    assert (profile.num_cuts, "") in kept


def test_without_a_choice_of_codecs_places_are_cuts():
    world = Scenario.preset("table2")
    assert world.has_plain_cuts
    assert [one.cut for one in world.choices[0][0]] == list(range(55))
    coded = world.replace(codecs="int8")
    assert coded.has_plain_cuts
    setting = setting_of(coded)
    # The device computes the encoding, 7 cycles an element.
    np.testing.assert_allclose(
        setting.local_cycles[0, 0, :54] - setting_of(world).local_cycles[0, 0, :54],
        7.0 * world.profiles[0][0].crossing_elements[:54],
    )


def test_blocks_are_those_of_the_network():
    names = {}
    for model in ("resnet50", "mobilenet_v2", "vit_b_16"):
        world = Scenario.preset("table2").replace(services=(model,), cuts="blocks")
        profile = world.profiles[0][0]
        names[model] = [profile.cuts[one.cut].name for one in world.choices[0][0]]
    # An input, a first layer, sixteen residual blocks and the classifier.
    assert names["resnet50"][:4] == ["input", "conv1", "layer1.0.downsample.0", "layer1.1.conv3"]
    assert [len(own) for own in names.values()] == [19, 21, 15]


def test_set_cuts_are_chosen_from_where_the_world_says_so():
    world = Scenario.preset("busy").replace(services=("shufflenet_v2_x1_0", "mobilenet_v2"))
    profile = world.profiles[0][0]
    usual, sets = world.replace(cuts="pareto"), world.replace(cuts="sets")
    assert all(one.cut <= profile.num_cuts for one in (*world.choices[0][0], *usual.choices[0][0]))
    assert sets.choices[0][1] == usual.choices[0][1]  # MobileNetV2 has none
    offered = [(profile.cut(one.cut).macs_before, one.bits, one.cut) for one in sets.choices[0][0]]
    assert [one.index for one in profile.set_cuts] == [cut for *_, cut in offered if cut > profile.num_cuts]
    assert all(macs < more and bits > fewer for (macs, bits, _), (more, fewer, _) in pairwise(offered))
    for cut in profile.cuts[:-1]:  # nothing that was left out is better than all that is there
        assert any(macs <= cut.macs_before and bits <= 8 * cut.crossing_elements for macs, bits, _ in offered)
    setting = setting_of(sets)
    place = offered.index(next(one for one in offered if one[2] == profile.set_cuts[0].index))
    assert setting.local_cycles[0, 0, place] == pytest.approx(RHO * profile.set_cuts[0].macs_before)
    fixed = named_policy(f"fixed:{profile.set_cuts[0].index},53", sets)
    fixed.reset(setting, np.random.default_rng(0))
    assert sets.chosen(fixed.cuts(None))[0][0].cut == profile.set_cuts[0].index
    result = simulate(sets, fixed, slots=500, seed=0)
    assert set(result.tasks.cut[result.tasks.service == 0]) == {place}
    with pytest.raises(ScenarioError, match="is not in 0"):
        named_policy(f"fixed:{profile.set_cuts[0].index},53", world)


def test_accuracy_is_what_the_profile_measured():
    def record(cut, codec, bits, same):
        return CodecRecord(cut, codec, bits, 0.0, 0.0, 0.0, same)

    measured = replace(
        BIG,
        codecs=tuple(
            record(cut.index, name, cut.crossing_elements * bits, same)
            for cut in BIG.cuts[:-1]
            for name, bits, same in (("int8", 5.0, 1.0), ("int4", 3.0, 0.9 if cut.index else 0.5))
        ),
    )
    world = small_scenario(services=(measured,))
    strict, loose = world.replace(min_accuracy=0.95), world.replace(min_accuracy=0.6)
    assert {one.codec for one in strict.choices[0][0]} == {"raw", "int8", ""}
    assert ("int4", 0) not in {(one.codec, one.cut) for one in loose.choices[0][0]}
    assert any(one.codec == "int4" for one in loose.choices[0][0])
    assert all(
        one.bits == 5.0 * BIG.cuts[one.cut].crossing_elements for one in strict.choices[0][0] if one.codec == "int8"
    )
    with pytest.raises(ScenarioError, match=r"^min_accuracy: no codec of big is known to keep 0.8 of the answers"):
        world.replace(codecs=("int4",), min_accuracy=0.8)
    with pytest.raises(ScenarioError, match=r"^min_accuracy"):
        world.replace(min_accuracy=1.5)
    # Bits alone say nothing of answers; 0 asks for none.
    bits_alone = replace(BIG, codecs=tuple(CodecRecord(one.cut, one.codec, one.bits) for one in measured.codecs))
    world = small_scenario(services=(bits_alone,), codecs=("raw", "int4"))
    assert {one.codec for one in world.replace(min_accuracy=0.01).choices[0][0]} == {"raw", ""}
    assert {one.codec for one in world.replace(min_accuracy=0.0).choices[0][0]} >= {"int4"}


def test_sets_may_differ_by_service_and_what_is_wrong_is_said():
    world = Scenario.preset("table2").replace(codecs=(("raw", "int4"), ("float16",)))
    assert {one.codec for one in world.choices[0][0]} == {"raw", "int4", ""}
    assert {one.codec for one in world.choices[3][1]} == {"float16", ""}
    assert [one.cut for one in world.choices[0][1]] == list(range(54))
    for codecs, message in (
        ((), "codecs: a list of them needs at least one"),
        ((("raw",),), "codecs: has lists for 1 services, but there are 2"),
        (("zip",), "there is no codec 'zip'"),
    ):
        with pytest.raises(ScenarioError, match=message):
            world.replace(codecs=codecs)


def test_given_cuts_are_cuts_and_go_in_the_fewest_bits():
    world = Scenario.preset("table2").replace(codecs=("raw", "int8", "int4"))
    policy = named_policy("fixed:0,53", world)
    policy.reset(setting_of(world), np.random.default_rng(0))
    chosen = world.chosen(policy.cuts(None))
    assert [str(one) for one in chosen[0]] == ["0 int4", "53"]
    with pytest.raises(
        ScenarioError, match=r"^policy: cut 1 of resnet50 is not among those it may choose: 0, 47, 53, 54"
    ):
        named_policy("fixed:1,53", world)


@pytest.mark.parametrize("policy", ["best-static", "myopic", "price", "lyappo"])
def test_policies_that_may_choose_the_codec_spend_less(policy):
    allocation = "price" if policy == "price" else "drift-plus-penalty"
    plain = Scenario.preset("busy").replace(codecs="raw", allocation=allocation)
    free = plain.replace(codecs=("raw", "int8", "int4"))
    before = simulate(plain, named_policy(policy, plain), slots=4000, seed=3)
    after = simulate(free, named_policy(policy, free), slots=4000, seed=3)
    assert after.energy_j < 0.7 * before.energy_j
    assert after.latency_s.mean() < before.latency_s.mean()
    places = np.unique(after.tasks.cut[after.tasks.service == 0])
    assert {free.choices[0][0][place].codec for place in places} & {"int8", "int4"}


def test_worlds_with_other_choices_are_other_worlds():
    world = Scenario.preset("table2")
    made = [world, world.replace(codecs=("raw", "int8")), world.replace(codecs=("raw",)), world.replace(cuts="blocks")]
    assert len({digest(one) for one in made}) == len(made)


def test_a_scenario_with_choices_survives_its_file(tmp_path):
    world = Scenario.preset("table2").replace(codecs=(("raw", "int4"), ("float16",)), cuts="pareto")
    world.save(tmp_path / "world.toml")
    assert Scenario.load(tmp_path / "world.toml").choices == world.choices
