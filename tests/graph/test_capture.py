"""What cannot be captured is refused in one line; what can be is left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from splitinfer.errors import CaptureError, InputError
from splitinfer.graph import SplitModel


class BranchesOnValues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return x + 1


class LeavesTorch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor(x.numpy() * 2)


def test_a_refusal_names_the_line_and_what_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CaptureError, match=r"test_capture\.py:\d+ `if x\.sum\(\) > 0:`.*torch\.where") as caught:
        SplitModel.capture(BranchesOnValues().eval(), (torch.ones(2),))
    assert "\n" not in str(caught.value)
    with pytest.raises(CaptureError, match=r"numpy\(\) \* 2.*keep the computation in torch"):
        SplitModel.capture(LeavesTorch().eval(), (torch.ones(2),))
    assert capfd.readouterr() == ("", "")


def test_wrong_arguments_are_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"must be a torch\.nn\.Module, not str"):
        SplitModel.capture("resnet18", (torch.ones(2),))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tuple of inputs"):
        SplitModel.capture(model, torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"do not fit Linear\.forward: missing a required argument: 'input'"):
        SplitModel.capture(model, ())


def test_the_module_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.ones(1, 3, 8, 8)
    with pytest.warns(UserWarning, match="training mode"):
        split = SplitModel.capture(model, (image,))
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(split(image), model.eval()(image), rtol=1e-4, atol=1e-4)


def test_a_model_that_counts_its_calls_answers_the_same_every_time() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.layer(x) + self.calls

    model = Counts().eval()
    with pytest.warns(UserWarning, match=r"writes to its buffers \(calls\)"):
        split = SplitModel.capture(model, (torch.ones(2),))
    first = split(torch.ones(2))
    assert torch.equal(split(torch.ones(2)), first)
    assert model.calls == 0
    with torch.no_grad():
        torch.testing.assert_close(first, model(torch.ones(2)))


def test_everything_runs_without_gradients() -> None:
    split = SplitModel.capture(nn.Linear(2, 2), (torch.ones(2),))
    answer = split(torch.ones(2, requires_grad=True))
    assert not answer.requires_grad
    answer.sigmoid_()  # as an answer of an edge can be written to


def test_grouped_and_transposed_convolutions_fold() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 6, 2, 2),
        nn.BatchNorm2d(6, affine=False),
        nn.ConvTranspose2d(6, 6, 2, 2, groups=3),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 4, 1),
    ).eval()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    image = torch.randn(2, 4, 9, 9)
    split = SplitModel.capture(model, (image,))
    kept = [node for node in split._captured.graph.nodes if "batch_norm" in str(node.target)]
    assert len(kept) == 1  # after the grouped transposed convolution
    with torch.no_grad():
        torch.testing.assert_close(split(image), model(image), rtol=1e-4, atol=1e-5)


def test_fingerprints_tell_weights_architectures_and_modes_apart() -> None:
    def make(seed: int, width: int = 4) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU()).eval()

    image = (torch.ones(1, 3, 8, 8),)
    reference = SplitModel.capture(make(0), image).fingerprint
    assert SplitModel.capture(make(0), image).fingerprint == reference
    others = [
        SplitModel.capture(make(1), image),
        SplitModel.capture(make(0, 5), image),
        SplitModel.capture(make(0), image, optimize=False),
        SplitModel.capture(make(0), (torch.ones(1, 3, 9, 9),)),
        SplitModel.capture(nn.Sequential(*make(0)[:2]).eval(), image),
    ]
    assert len({reference, *(other.fingerprint for other in others)}) == 6


def test_a_changed_weight_changes_the_fingerprint_only_before_capture() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    first = SplitModel.capture(model, (torch.ones(2),)).fingerprint
    with torch.no_grad():
        model.bias[0] += 1
    assert SplitModel.capture(model, (torch.ones(2),)).fingerprint != first
