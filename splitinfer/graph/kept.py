"""Captured graphs on disk, so that a second start need not build, draw and capture a model again.

A file holds the graph as JSON and the weights as safetensors: reading one runs no code of its own, and only operators
of torch itself are taken. What is read is believed once it has the fingerprint under which it was written; whatever
else it is, it is captured anew. Graphs with anything in them that JSON does not hold are not kept.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from splitinfer.files import is_ours, replacing
from splitinfer.graph.capture import CapturedGraph
from splitinfer.graph.cuts import layer_path
from splitinfer.graph.specs import TensorSpec

FORMAT = 1
"""Of the files; a change makes old ones useless."""

MAX_KEPT_BYTES = 4 << 30
"""Most that the kept graphs take on disk together, and likewise the halves of an engine; those that were used longest
ago go first."""

_KEPT_SUFFIXES = (".safetensors", ".onnx", ".npy")

_PLAIN = (type(None), bool, int, float, str)
_NAMED: dict[type, str] = {torch.dtype: "dtype", torch.memory_format: "memory_format", torch.layout: "layout"}


class _CannotBeKeptError(Exception):
    """Something in the graph has no form in a file."""


def frozen(captured: CapturedGraph) -> Callable[[Path, str], bool]:
    """Take a graph down before folding changes it; what is returned writes it to a file, with its fingerprint.

    Writing gives False where the graph cannot be kept, or the disk does not take it: that is no error.
    """
    try:
        record, weights = _record(captured)
    except (_CannotBeKeptError, NotImplementedError):
        return lambda path, fingerprint: False

    def write(path: Path, fingerprint: str) -> bool:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        metadata = {"graph": json.dumps(record), "fingerprint": fingerprint}
        if sum(weight.nbytes for weight in weights.values()) > MAX_KEPT_BYTES:
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replacing(path) as part:
                save_file(weights, part, metadata)
                part.chmod(0o600)  # what others could write is not believed
            make_room(path.parent)
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError):
            return False
        return True

    return write


def thawed(path: Path) -> tuple[CapturedGraph, str] | None:
    """Return a kept graph and the fingerprint it should have; None where there is none that may be believed."""
    from safetensors import SafetensorError, safe_open

    try:
        if not is_ours(path):
            return None
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        captured = _captured(json.loads(metadata["graph"]), tensors)
        os.utime(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError):
        return None
    return captured, metadata.get("fingerprint", "")


def make_room(folder: Path, in_use: Container[Path] = ()) -> None:
    """Remove what was used longest ago until the kept files of a folder take ``MAX_KEPT_BYTES`` at most.

    The newest file stays, and those that are in use.
    """
    files = []
    for file in folder.iterdir():
        if file.suffix in _KEPT_SUFFIXES and not file.name.startswith("."):  # those are being written
            with contextlib.suppress(OSError):  # another process makes room, too
                files.append((file.stat(), file))
    files.sort(key=lambda each: each[0].st_mtime)
    total = sum(about.st_size for about, _ in files)
    for about, file in files[:-1]:
        if total > MAX_KEPT_BYTES and file not in in_use:
            with contextlib.suppress(OSError):
                file.unlink()
            total -= about.st_size


def _record(captured: CapturedGraph) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    numbers = {node: index for index, node in enumerate(captured.graph.nodes)}
    nodes = [
        {
            "op": node.op,
            "name": node.name,
            "target": _target_name(node),
            "args": _plain(list(node.args), numbers),
            "kwargs": {name: _plain(value, numbers) for name, value in node.kwargs.items()},
            "val": _value(node.meta["val"]) if "val" in node.meta else None,
            "layer": layer_path(node),
        }
        for node in captured.graph.nodes
    ]
    stored: dict[str, torch.Tensor] = {}
    places: dict[str, Any] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, weight in captured.weights.items():
        if not isinstance(weight, torch.Tensor) or weight.device.type != "cpu":
            raise _CannotBeKeptError
        key = weight.data_ptr(), tuple(weight.shape), weight.stride(), weight.dtype, weight.requires_grad
        if not weight.numel() or key not in seen:
            seen[key] = name
            stride = weight.stride()
            order = sorted(range(weight.dim()), key=lambda dim: -stride[dim])
            stored[name] = weight.detach().permute(order)
            if not stored[name].is_contiguous():
                raise _CannotBeKeptError
            if stored[name].untyped_storage().nbytes() != stored[name].nbytes:
                stored[name] = stored[name].clone()
            places[name] = {"as": name, "order": order, "requires_grad": weight.requires_grad}
        else:
            places[name] = {"as": seen[key]}
    record = {
        "format": FORMAT,
        "nodes": nodes,
        "weights": places,
        "input_tree": pytree.treespec_dumps(captured.input_tree),
        "input_leaves": [
            {"spec": [_dtype(leaf.dtype), list(leaf.shape), leaf.name]}
            if isinstance(leaf, TensorSpec)
            else _plain(leaf)
            for leaf in captured.input_leaves
        ],
        "output_tree": pytree.treespec_dumps(captured.output_tree),
        "output_leaves": [[index, _plain(constant)] for index, constant in captured.output_leaves],
        "num_parameters": captured.num_parameters,
        "notes": list(captured.notes),
    }
    return record, stored


def _target_name(node: fx.Node) -> str:
    if node.op != "call_function":
        return str(node.target)
    if node.target is operator.getitem:
        return "getitem"
    if isinstance(node.target, OpOverload) and node.target.namespace in ("aten", "prims"):
        return str(node.target)
    raise _CannotBeKeptError


def _plain(value: Any, numbers: dict[fx.Node, int] | None = None) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, fx.Node) and numbers is not None:
        return {"node": numbers[value]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_plain(item, numbers) for item in value]}
    if isinstance(value, slice):
        return {"slice": [_plain(item, numbers) for item in (value.start, value.stop, value.step)]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for named, name in _NAMED.items():
        if isinstance(value, named):
            return {name: str(value).removeprefix("torch.")}
    raise _CannotBeKeptError


def _value(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return {"several": [_value(item) for item in value]}
    if not isinstance(value, torch.Tensor) or not all(type(size) is int for size in (*value.shape, *value.stride())):
        raise _CannotBeKeptError
    return [_dtype(value.dtype), list(value.shape), list(value.stride())]


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _captured(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> CapturedGraph:
    if record["format"] != FORMAT:
        raise ValueError("another format")
    graph = fx.Graph()
    made: list[fx.Node] = []
    for entry in record["nodes"]:
        target = _target(entry["target"]) if entry["op"] == "call_function" else entry["target"]
        args = tuple(_unplain(value, made) for value in entry["args"]["list"])
        kwargs = {name: _unplain(value, made) for name, value in entry["kwargs"].items()}
        node = graph.create_node(entry["op"], target, args, kwargs, entry["name"])
        node.name = entry["name"]  # torch may have numbered it anew
        if entry["val"] is not None:
            node.meta["val"] = _example(entry["val"])
        node.meta["nn_module_stack"] = {"": (entry["layer"], "")}
        made.append(node)
    weights: dict[str, Any] = {}
    for name, place in record["weights"].items():
        if "order" not in place:
            weights[name] = weights[place["as"]]
            continue
        order = place["order"]
        weight = tensors[place["as"]].permute([order.index(dim) for dim in range(len(order))])
        weights[name] = weight.requires_grad_(place["requires_grad"])
    return CapturedGraph(
        graph=graph,
        weights=weights,
        input_tree=pytree.treespec_loads(record["input_tree"]),
        input_leaves=[
            TensorSpec(tuple(leaf["spec"][1]), getattr(torch, leaf["spec"][0]), leaf["spec"][2])
            if isinstance(leaf, dict) and "spec" in leaf
            else _unplain(leaf, made)
            for leaf in record["input_leaves"]
        ],
        output_tree=pytree.treespec_loads(record["output_tree"]),
        output_leaves=[(index, _unplain(constant, made)) for index, constant in record["output_leaves"]],
        num_parameters=record["num_parameters"],
        notes=list(record["notes"]),
    )


def _target(name: str) -> Any:
    if name == "getitem":
        return operator.getitem
    namespace, packet, overload = name.split(".")
    if namespace not in ("aten", "prims"):
        raise ValueError("an operator of somebody else")
    found = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    if not isinstance(found, OpOverload):
        raise ValueError("no operator")
    return found


def _unplain(value: Any, made: list[fx.Node]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "node":
        return made[held]
    if kind in ("list", "tuple", "slice"):
        items = [_unplain(item, made) for item in held]
        return items if kind == "list" else tuple(items) if kind == "tuple" else slice(*items)
    found = torch.device(held) if kind == "device" else getattr(torch, held)
    if not isinstance(found, (torch.device, *_NAMED)):
        raise ValueError("no such value")
    return found


def _example(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_example(item) for item in value["several"])
    dtype, shape, stride = value
    return torch.empty_strided(shape, stride, dtype=getattr(torch, dtype), device="meta")
