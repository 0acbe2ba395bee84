"""The shipped profiles are what is measured now, and agree with two counters that others wrote."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from itertools import product

import pytest
import torch

from splitinfer import Profile, load_model
from splitinfer.models import card_names, load_card
from splitinfer.models.loading import load_structure
from splitinfer.profiling.shipped import measure_shipped, shipped_profile_path, with_codec_bits
from splitinfer.wire.codecs import CODECS

# Exact counts of convolutions and linear layers that are published for these models at 224x224.
PUBLISHED_MACS = {
    "resnet18": 1_814_073_344,
    "resnet50": 4_089_184_256,
    "mobilenet_v2": 300_774_272,
    "squeezenet1_1": 349_151_936,
}

# What fvcore counts of the operators that do multiply-accumulates; the rest of its total is batch norms, pooling and
# the like (docs/macs.md).
FVCORE_MAC_OPERATORS = ("conv", "linear", "matmul", "addmm", "bmm", "einsum")

# fvcore has no rule for fused attention. ViT-B/16: 12 layers, 197 tokens, width 768, query times key and weights times
# value.
MACS_UNKNOWN_TO_FVCORE = {"vit_b_16": 12 * 2 * 197 * 197 * 768}


def test_every_card_has_a_shipped_profile_and_no_other_is_shipped() -> None:
    folder = shipped_profile_path("any").parent
    assert sorted(path.stem for path in folder.glob("*.json")) == card_names()
    assert all(path.stat().st_size < 1_000_000 for path in folder.glob("*.json"))


@pytest.mark.parametrize("name", card_names())
def test_the_shipped_profile_is_what_is_measured_now(name: str) -> None:
    shipped = Profile.load(shipped_profile_path(name))
    assert shipped.latency_host is None
    assert replace(shipped, codecs=(), codecs_from="") == measure_shipped(name)


@pytest.mark.parametrize("name", card_names())
def test_every_shipped_profile_holds_the_bits_of_every_cut_and_codec(name: str) -> None:
    shipped = Profile.load(shipped_profile_path(name))
    sending = [*range(shipped.num_cuts), *(cut.index for cut in shipped.set_cuts)]
    measured = {(one.cut, one.codec) for one in shipped.codecs}
    assert measured >= set(product(sending, (codec.name for codec in CODECS)))
    assert shipped.codecs_from.startswith("pictures: china.jpg, flower.jpg; weights: ")
    for one in shipped.codecs:
        if one.codec in ("raw", "float16"):
            bits = 32 if one.codec == "raw" else 16
            assert one.bits == pytest.approx(bits * shipped.cut(one.cut).crossing_elements)


def test_the_bits_of_codecs_are_what_is_measured_now() -> None:
    shipped = Profile.load(shipped_profile_path("mobilenet_v3_small"))
    now = with_codec_bits(shipped)
    assert now.codecs_from == shipped.codecs_from
    found = {(one.cut, one.codec): one.bits for one in now.codecs}
    expected = {(one.cut, one.codec): one.bits for one in shipped.codecs}
    assert found.keys() == expected.keys()
    for key, bits in expected.items():
        # Another processor may round a value on the edge of a level to the other side, and what is compressed shows it.
        assert found[key] == pytest.approx(bits, rel=0.03 if key[1].endswith("+zstd") else 1e-3), key


@pytest.mark.parametrize(("name", "macs"), PUBLISHED_MACS.items())
def test_published_counts(name: str, macs: int) -> None:
    assert Profile.load(shipped_profile_path(name)).total_macs == macs


@pytest.mark.parametrize(("name", "num_cuts"), [("resnet18", 21), ("resnet50", 54), ("mobilenet_v2", 53)])
def test_number_of_cuts(name: str, num_cuts: int) -> None:
    assert Profile.load(shipped_profile_path(name)).num_cuts == num_cuts


@pytest.mark.parametrize("name", card_names())
def test_totals_agree_with_fvcore_and_with_torch(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis
    from torch.utils.flop_counter import FlopCounterMode

    ours = Profile.load(shipped_profile_path(name)).total_macs
    card = load_card(name)
    model, inputs = load_model(card), card.example_inputs()
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which fvcore is built on
        by_operator = FlopCountAnalysis(model, inputs).by_operator()
    theirs = sum(by_operator[operator] for operator in FVCORE_MAC_OPERATORS)
    assert theirs + MACS_UNKNOWN_TO_FVCORE.get(name, 0) == pytest.approx(ours, rel=0.005)

    # torch's counter works on shapes alone, so that the model needs no values.
    structure = load_structure(card)
    device = next(structure.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        structure(*(tensor.to(device) for tensor in inputs))
    assert counter.get_total_flops() / 2 == pytest.approx(ours, rel=0.005)
