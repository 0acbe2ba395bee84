"""What ``profile`` counts, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from splitinfer import Profile, load_model, profile
from splitinfer.errors import InputError
from splitinfer.models import load_card


class Small(nn.Module):
    """Two convolutions with a skip between them, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(4 * 8 * 8, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        one = torch.relu(self.first(image))
        two = self.second(one) + one
        result: torch.Tensor = self.head(two.flatten(1))
        return result


def small() -> nn.Module:
    return Small()


def test_macs_and_crossings_of_a_small_model_by_hand() -> None:
    measured = profile(Small(), (torch.randn(1, 3, 16, 16),), name="small")
    first = 4 * 8 * 8 * 3 * 9
    second = 4 * 8 * 8 * (4 // 2) * 9
    head = 10 * 4 * 8 * 8
    assert measured.model == "small"
    assert [cut.macs_before for cut in measured.cuts] == [0, first, first + second, first + second + head]
    assert [cut.name for cut in measured.cuts] == ["input", "first", "second", "head"]
    assert [cut.crossing_elements for cut in measured.cuts] == [3 * 16 * 16, 4 * 8 * 8, 4 * 8 * 8, 0]
    assert measured.parameters == 3 * 4 * 9 + 4 + 4 * 2 * 9 + 4 + 4 * 64 * 10 + 10
    assert measured.input_bits == 3 * 16 * 16 * 32
    assert measured.feature_ratio.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 0])
    assert measured.uncounted_ops == {"add": 1, "relu": 1}
    assert measured.latency_host is None


class Tied(nn.Module):
    """One weight used first and last, between them another; a buffer is returned as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.tied, self.between = nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.register_buffer("kept", torch.zeros(5, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.tied(torch.relu(self.between(self.tied(x)))), "kept": self.kept}


def test_weights_of_each_half_and_bits_of_the_answer_by_hand() -> None:
    first, second, head = 4 * 3 * 9 + 4, 4 * 2 * 9 + 4, 10 * 256 + 10
    measured = profile(Small(), (torch.randn(1, 3, 16, 16),), name="small")
    halves = [(cut.head_weights.elements, cut.tail_weights.elements) for cut in measured.cuts]
    assert halves == [(0, first + second + head), (first, second + head), (first + second, head), (sum(halves[-1]), 0)]
    assert halves[-1][0] == measured.parameters
    assert measured.cuts[1].head_weights.bits == 32 * first
    assert measured.output_bits == 10 * 32
    tied = profile(Tied(), (torch.randn(2, 8),), name="tied")
    assert [cut.head_weights.elements for cut in tied.cuts] == [0, 64, 136, 136 + 5]
    assert [cut.tail_weights.elements for cut in tied.cuts] == [136 + 5, 136 + 5, 64 + 5, 0]
    assert tied.output_bits == 2 * 8 * 32 + 5 * 64
    assert Profile.from_dict(tied.to_dict()) == tied


def test_the_batch_multiplies_macs_and_bits_and_leaves_the_ratios() -> None:
    one = profile("squeezenet1_1", input_size=64)
    three = profile("squeezenet1_1", input_size=64, batch=3)
    assert three.total_macs == 3 * one.total_macs
    assert three.input_bits == 3 * one.input_bits == 3 * 3 * 64 * 64 * 32
    assert three.feature_ratio.tolist() == one.feature_ratio.tolist()
    assert three.compute_ratio.tolist() == pytest.approx(one.compute_ratio.tolist(), rel=1e-12)


def test_other_input_sizes_need_not_be_square() -> None:
    measured = profile("squeezenet1_1", input_size=(64, 96))
    assert measured.inputs[0].shape == (1, 3, 64, 96)


def test_a_card_and_its_module_with_real_weights_have_the_same_profile() -> None:
    """A card is counted without values in the weights; values change nothing."""
    card = load_card("shufflenet_v2_x1_0")
    inputs = card.example_inputs(input_size=64)
    assert profile(card, input_size=64) == profile(load_model(card), inputs, name=card.name)


def test_folding_changes_neither_macs_nor_what_crosses() -> None:
    """Latency is measured with batch norms folded; its table has to be the same."""
    from splitinfer.profiling.latency import LatencySettings

    def table(measured: Profile) -> list[object]:
        return [
            (cut.name, cut.macs_before, [(t.shape, t.dtype) for t in cut.crossing], cut.output_shape)
            for cut in measured.cuts
        ]

    timed = profile("mobilenet_v3_small", input_size=32, latency=LatencySettings(warmup=0, repeats=1))
    assert table(timed) == table(profile("mobilenet_v3_small", input_size=32))
    assert timed.latency_host is not None
    assert all(cut.head_latency and cut.tail_latency for cut in timed.cuts)


@pytest.mark.parametrize("factory", ["FixedDevice", "looks_at_values"])
def test_models_that_need_values_get_them(factory: str) -> None:
    measured = profile(f"tests.models.tiny:{factory}", input_size=(4, 4 if factory == "looks_at_values" else 224))
    assert measured.num_cuts == 1
    assert measured.total_macs == (3 * 4 * 4 * 4 if factory == "looks_at_values" else 3 * 4 * 224 * 8)


def test_a_module_takes_keyword_inputs() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, left: torch.Tensor, *, right: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.linear(left) + right
            return result

    measured = profile(Pair(), (torch.randn(2, 8),), {"right": torch.randn(2, 8)})
    assert measured.model == "Pair"
    assert measured.total_macs == 2 * 8 * 8
    assert measured.input_bits == 2 * 2 * 8 * 32


def test_what_does_not_go_together_is_refused() -> None:
    image = torch.randn(1, 3, 16, 16)
    with pytest.raises(InputError, match="needs its inputs"):
        profile(Small())
    with pytest.raises(InputError, match="a module comes with its inputs"):
        profile(Small(), (image,), batch=2)
    with pytest.raises(InputError, match="a model card brings its own"):
        profile("resnet18", (image,))
    with pytest.raises(InputError, match="unknown model"):
        profile("resnet19")
