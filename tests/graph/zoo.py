"""The models that capture and cuts are held to, with seeded weights and lively batch-norm statistics."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from splitinfer.torchvision_compat import import_torchvision

models = import_torchvision().models

# name -> (factory, input size). Inputs are small, weights random: equality does not depend on either.
CLASSIFICATION: dict[str, tuple[Callable[[], nn.Module], int]] = {
    **{
        name: (lambda name=name: models.get_model(name, weights=None, num_classes=10), 64)  # type: ignore[misc]
        for name in (
            "alexnet",
            "convnext_tiny",
            "efficientnet_b0",
            "mnasnet1_0",
            "mobilenet_v2",
            "mobilenet_v3_large",
            "mobilenet_v3_small",
            "regnet_x_400mf",
            "regnet_y_400mf",
            "resnet18",
            "resnet34",
            "resnet50",
            "resnext50_32x4d",
            "shufflenet_v2_x1_0",
            "squeezenet1_1",
            "vgg11",
            "vgg11_bn",
        )
    },
    "googlenet": (lambda: models.googlenet(weights=None, init_weights=False, num_classes=10), 64),
    "inception_v3": (lambda: models.inception_v3(weights=None, init_weights=False, num_classes=10), 96),
    "vit_b_16": (
        lambda: models.VisionTransformer(64, 16, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10),
        64,
    ),
    "densenet": (lambda: models.DenseNet(8, (3, 3, 2), 16, num_classes=10), 64),
    "swin": (
        lambda: models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=10),
        64,
    ),
    "swin_v2": (
        lambda: models.SwinTransformer(
            [4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=10, block=models.swin_transformer.SwinTransformerBlockV2,
            downsample_layer=models.swin_transformer.PatchMergingV2,
        ),
        64,
    ),
    "maxvit": (
        lambda: models.MaxVit(
            input_size=(64, 64), stem_channels=16, partition_size=4, block_channels=[16, 32], block_layers=[1, 1],
            head_dim=8, stochastic_depth_prob=0.1, num_classes=10,
        ),
        64,
    ),
}  # fmt: skip

SEGMENTATION: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "lraspp_mobilenet_v3_large": (
        lambda: models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None),
        64,
    ),
    "deeplabv3_mobilenet_v3_large": (
        lambda: models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None),
        64,
    ),
}


class Windows(nn.Module):
    """Overlapping windows of a feature map by ``as_strided``, which reads memory and not dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(4 * 9, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.first(image)).contiguous()
        batch, channels, height, width = maps.shape
        rows = torch.as_strided(
            maps,
            (batch, channels, (height - 1) // 2, 3, width),
            (channels * height * width, height * width, 2 * width, width, 1),
        )
        windows = self.last(rows.mean(3).transpose(2, 3))
        return self.head(windows.unfold(2, 3, 9).unfold(3, 3, 9).mean((2, 3)).flatten(1))


OTHERS: dict[str, tuple[Callable[[], nn.Module], int]] = {"as_strided": (Windows, 64)}
if find_spec("timm") is not None:
    OTHERS["volo"] = (
        lambda: import_module("timm").create_model("volo_d1_224", pretrained=False, img_size=64, num_classes=10),
        64,
    )

ZOO = CLASSIFICATION | SEGMENTATION | OTHERS


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a model of the zoo in evaluation mode and one input."""
    factory, size = ZOO[name]
    torch.manual_seed(sum(map(ord, name)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = factory().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for parameter in model.parameters():
        if not parameter.detach().any():  # some heads start at zero, and nothing could be told from their output
            nn.init.normal_(parameter, std=0.1)
    return model, torch.randn(1, 3, size, size)


def tensor_leaves(output: Any) -> list[torch.Tensor]:
    """Return the tensors of a model's output, in order."""
    leaves, _ = torch.utils._pytree.tree_flatten(output)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def eager_leaves(model: nn.Module, *inputs: Any, **kwargs: Any) -> list[torch.Tensor]:
    """Return what the module itself answers, operator by operator.

    In evaluation mode nn.MultiheadAttention may take one fused operator for all of it, which sums in another order.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad():
            return tensor_leaves(model(*inputs, **kwargs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def layout(tensor: torch.Tensor) -> list[int]:
    """Return the strides that mean something: those of dimensions with more than one element."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
