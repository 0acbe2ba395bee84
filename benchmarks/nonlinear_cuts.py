"""How many Pareto points do cuts add that are no prefix of the captured order?

A cut is any set of operations that contains what its members need. The captured order reaches its prefixes only; a
model with branches has more. For each model this enumerates, exactly, every Pareto point of (MACs before the cut, bits
crossing it) over all such sets: the least bits within a budget of MACs is an integer programme (HiGHS), solved again
with a smaller budget until nothing is left. A tensor with several users is counted once. Points that the model's own
cuts 0..K already reach are linear; the others are what non-linear cuts add. Beside them stands how many of those the
model's set cuts reach, which are found by minimum cuts in a fraction of the time.

Run: ``python -m benchmarks.nonlinear_cuts [--json] [--models "NAME;NAME"] [--limit N]``
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from torch import nn

from splitinfer import SplitModel, load_model
from splitinfer.graph.cuts import Program
from splitinfer.models import list_cards, load_card


class Branches(nn.Module):
    """Inception-like: branches that narrow at once, of different depth, joined at the end."""

    def __init__(self, width: int, narrow: int, count: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, stride=2)
        self.reduce = nn.ModuleList(nn.Conv2d(width, narrow, 1) for _ in range(count))
        self.deep = nn.ModuleList(nn.Conv2d(narrow, width // 2, 3, padding=1) for _ in range(count))
        self.head = nn.Conv2d(count * (width // 2), 10, 1)

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = self.stem(x).relu()
        branches = zip(self.reduce, self.deep, strict=True)
        return self.head(torch.cat([deep(reduce(x).relu()).relu() for reduce, deep in branches], 1)).mean((2, 3))


def _narrowing(depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(3 if i == 0 else 16, 16, 3, stride=2, padding=1), nn.ReLU()]
    return layers


class Towers(nn.Module):
    """One tower per input, each with its own narrowing, joined by addition or concatenation."""

    def __init__(self, inputs: int, depth: int, join: str) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(
                *(
                    nn.Sequential(nn.Conv2d(3 if i == 0 else 16, 16, 3, stride=2, padding=1), nn.ReLU())
                    for i in range(depth)
                )
            )
            for _ in range(inputs)
        )
        self.join = join
        self.head = nn.Linear(16 * (inputs if join == "cat" else 1), 10)

    def forward(self, *images):  # type: ignore[no-untyped-def]
        parts = [tower(image).mean((2, 3)) for tower, image in zip(self.towers, images, strict=True)]
        return self.head(torch.cat(parts, 1) if self.join == "cat" else sum(parts))


class Pyramid(nn.Module):
    """A feature pyramid: every scale is an output's input, from the top down."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(3 if i == 0 else 16, 16, 3, stride=2, padding=1) for i in range(4))
        self.side = nn.ModuleList(nn.Conv2d(16, 8, 1) for _ in range(4))
        self.out = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(4))

    def forward(self, x):  # type: ignore[no-untyped-def]
        sides = []
        for down, side in zip(self.down, self.side, strict=True):
            x = down(x).relu()
            sides.append(side(x))
        top, answers = sides[-1], []
        for side, out in zip(reversed(sides), reversed(self.out), strict=True):
            if side is not top:
                top = side + nn.functional.interpolate(top, side.shape[-2:])
            answers.append(out(top))
        return tuple(answers)


class UNet(nn.Module):
    """Skips from every scale of the way down to the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(3 if i == 0 else 16, 16, 3, stride=2, padding=1) for i in range(3))
        self.up = nn.ModuleList(nn.Conv2d(32, 16, 3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):  # type: ignore[no-untyped-def]
        kept = []
        for down in self.down:
            x = down(x).relu()
            kept.append(x)
        for up, skip in zip(self.up, (kept[1], kept[0]), strict=True):
            x = up(torch.cat([nn.functional.interpolate(x, skip.shape[-2:]), skip], 1)).relu()
        return self.head(x)


class TwoStream(nn.Module):
    """Picture and motion, fused twice on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb = nn.ModuleList(nn.Conv2d(3 if i == 0 else 16, 16, 3, stride=2, padding=1) for i in range(3))
        self.flow = nn.ModuleList(nn.Conv2d(2 if i == 0 else 16, 16, 3, stride=2, padding=1) for i in range(3))
        self.head = nn.Linear(16, 10)

    def forward(self, rgb, flow):  # type: ignore[no-untyped-def]
        for i, (a, b) in enumerate(zip(self.rgb, self.flow, strict=True)):
            rgb, flow = a(rgb).relu(), b(flow).relu()
            if i:
                rgb = rgb + flow
        return self.head(rgb.mean((2, 3)))


class Heads(nn.Module):
    """One backbone, several heads that each narrow at once."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1)
        )
        self.heads = nn.ModuleList(nn.Sequential(nn.Conv2d(64, 4, 1), nn.Conv2d(4, 8, 3, padding=1)) for _ in range(4))

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = self.backbone(x).relu()
        return tuple(head(x) for head in self.heads)


class CrossAttention(nn.Module):
    """Queries of one input attend to another; both are projected."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(64, 16), nn.Linear(64, 16)
        self.value, self.out = nn.Linear(64, 16), nn.Linear(16, 4)

    def forward(self, left, right):  # type: ignore[no-untyped-def]
        weights = (self.left(left) @ self.right(right).transpose(1, 2)).softmax(-1)
        return self.out(weights @ self.value(right))


def own_models() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]]:
    """Ten models with branches or several inputs."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    return {
        "branches": (Branches(64, 8, 3), (image,)),
        "wide branches": (Branches(64, 32, 4), (image,)),
        "two inputs, cat": (Towers(2, 3, "cat"), (image, image)),
        "three inputs, add": (Towers(3, 3, "add"), (image,) * 3),
        "deep and wide inputs": (Towers(2, 5, "cat"), (image, torch.randn(1, 3, 128, 128))),
        "pyramid": (Pyramid(), (image,)),
        "u-net": (UNet(), (image,)),
        "two streams": (TwoStream(), (image, torch.randn(1, 2, 64, 64))),
        "four heads": (Heads(), (image,)),
        "cross attention": (CrossAttention(), (torch.randn(1, 20, 64), torch.randn(1, 50, 64))),
    }


@dataclass(frozen=True)
class Count:
    """What was found for one model.

    Attributes:
        linear: Pareto points that the model's own cuts reach.
        added: Pareto points that only other cuts reach.
        reached: of these, those that the model's set cuts reach or beat (the programme knows no views).
        beaten: the model's Pareto cuts that such a point beats.
        saving: largest share of bits that one of them saves against the best own cut within its MACs.
        is_complete: False where the enumeration was cut short.
        search_s, enumeration_s: time that set cuts and the enumeration took.
    """

    linear: int
    added: int
    reached: int
    beaten: int
    saving: float
    is_complete: bool
    search_s: float
    enumeration_s: float


def pareto(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The points that no other has both less of, by MACs."""
    kept: list[tuple[int, int]] = []
    for macs, bits in sorted(set(points)):
        if not kept or bits < kept[-1][1]:
            kept.append((macs, bits))
    return kept


def all_points(program: Program, limit: int) -> tuple[list[tuple[int, int]], bool]:
    """Every Pareto point over all downward-closed sets but the whole, and whether all were found."""
    nodes = [*program.inputs, *program.operations]
    index = {node: i for i, node in enumerate(nodes)}
    macs = np.array([0] * len(program.inputs) + list(program.macs), np.float64)
    bits = np.zeros(len(nodes))
    for node, i in index.items():
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            bits[i] = value.numel() * value.dtype.itemsize * 8
    unit = np.gcd.reduce(bits[bits > 0].astype(np.int64))
    edges = {(index[s], i) for node, i in index.items() for s in node.all_input_nodes if s in index}
    outputs = [index[node] for node in program.outputs if node in index]
    size = len(nodes)
    rows, columns, values, low = [], [], [], []

    def at_least(terms: list[tuple[int, float]], bound: float) -> None:
        for column, value in terms:
            rows.append(len(low))
            columns.append(column)
            values.append(value)
        low.append(bound)

    # x: in the head; y: crosses. What a member needs is a member; who is needed outside crosses.
    for source, user in edges:
        at_least([(source, 1.0), (user, -1.0)], 0.0)
        if bits[source]:
            at_least([(size + source, 1.0), (source, -1.0), (user, 1.0)], 0.0)
        else:  # no tensor (a tuple of several): its users go with it
            at_least([(user, 1.0), (source, -1.0)], 0.0)
    for node in outputs:
        at_least([(size + node, 1.0), (node, -1.0)], 0.0)
    matrix = coo_array((values, (rows, columns)), shape=(len(low), 2 * size)).tocsr()
    lower, upper = np.zeros(2 * size), np.ones(2 * size)
    lower[: len(program.inputs)] = 1.0
    integrality = np.concatenate([np.ones(size), np.zeros(size)])
    # Whole units of MACs, so that a budget one unit lower is far above the solver's tolerance.
    step = float(np.gcd.reduce(macs[macs > 0].astype(np.int64)))
    total = macs.sum()
    weight = np.concatenate([np.zeros(size), bits / unit])
    # Of equal bits the fewest MACs: a share of one unit.
    weight[:size] += macs / total * 0.5
    scaled = macs / step
    budget, found = total - 1, []
    while budget >= 0 and len(found) < limit:
        room = LinearConstraint(np.concatenate([scaled, np.zeros(size)])[None], ub=np.floor(budget / step) + 0.5)
        answer = milp(
            weight,
            constraints=[LinearConstraint(matrix, lb=np.array(low)), room],
            bounds=Bounds(lower, upper),
            integrality=integrality,
            options={"mip_rel_gap": 0.0, "time_limit": 60.0},
        )
        if answer.x is None:
            break
        chosen = answer.x[:size] > 0.5
        point = int(macs[chosen].sum()), round(float(bits @ (answer.x[size:] > 0.5)))
        if point[1] == 0:  # nothing would cross: the model's whole result does not depend on the rest
            budget = point[0] - 1
            continue
        found.append(point)
        budget = point[0] - 1
    return found, budget < 0


def count(split: SplitModel, limit: int) -> Count:
    """Compare a model's cuts with all of its cuts."""
    own = pareto([(cut.macs_before, sum(t.bits for t in cut.crossing)) for cut in split.cuts[:-1]])
    started = time.perf_counter()
    sets = [(cut.macs_before, cut.crossing_bits) for cut in split.set_cuts]
    searched = time.perf_counter()
    points, is_complete = all_points(split._program, limit)
    enumerated = time.perf_counter()
    everything = pareto(points + own)
    added = [point for point in everything if point not in set(own)]
    beaten = [point for point in own if point not in set(everything)]
    saving = 0.0
    for macs, bits in added:
        best = min(own_bits for own_macs, own_bits in own if own_macs <= macs)
        saving = max(saving, 1 - bits / best)
    reached = [point for point in added if any(macs <= point[0] and bits <= point[1] for macs, bits in sets)]
    times = searched - started, enumerated - searched
    return Count(len(own), len(added), len(reached), len(beaten), saving, is_complete, *times)


def main(argv: list[str] | None = None) -> int:
    """Print one row per model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nonlinear_cuts", description=__doc__)
    parser.add_argument("--models", help="names, separated by semicolons; all by default")
    parser.add_argument("--limit", type=int, default=400, help="most Pareto points to enumerate per model")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    own = own_models()
    names = options.models.split(";") if options.models else [*(card.name for card in list_cards()), *own]
    results = {}
    for name in names:
        if name in own:
            module, inputs = own[name]
            split = SplitModel.capture(module.eval(), inputs)
        else:
            split = SplitModel.capture(load_model(name), load_card(name).example_inputs())
        results[name] = one = count(split, options.limit)
        if not options.json:
            print(
                f"{name:<30} {one.linear:3d} linear Pareto cuts, {one.added:3d} added, {one.reached:3d} by set cuts, "
                f"{one.beaten:2d} beaten, saves up to {one.saving:4.0%} of the bits"
                f"{'' if one.is_complete else ' (cut short)'}  "
                f"[{one.search_s:.2f} s, all sets {one.enumeration_s:.1f} s]",
                flush=True,
            )
    added = sum(one.added for one in results.values())
    linear = sum(one.linear for one in results.values())
    reached = sum(one.reached for one in results.values())
    if options.json:
        print(
            json.dumps(
                {
                    "ratios": {"added / linear": added / linear, "by set cuts / added": reached / max(added, 1)},
                    "models": {n: vars(o) for n, o in results.items()},
                }
            )
        )
    else:
        print(f"together {linear} linear, {added} added, {reached} of them by set cuts")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
