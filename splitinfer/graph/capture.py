"""From any module that ``torch.export`` takes to one flat, functional graph with its weights beside it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from splitinfer.errors import CaptureError, InputError
from splitinfer.graph.ambient import capturing
from splitinfer.graph.functionalize import functional_program
from splitinfer.graph.refusals import error_text
from splitinfer.graph.rewriting import depend_on_values_alone
from splitinfer.graph.specs import TensorSpec

_WEIGHT_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


@dataclass
class CapturedGraph:
    """A functional ATen graph whose placeholders are the tensors of one inference request.

    Attributes:
        graph: nodes are placeholders (tensor inputs), get_attr (weights), operators, and one output.
        weights: value of every get_attr target: the module's own tensors, not copies, and bodies of conditions.
        input_tree: pytree structure of ``(args, kwargs)``.
        input_leaves: per leaf of the inputs, its TensorSpec or the constant that the graph was captured with.
        output_tree: pytree structure of the output.
        output_leaves: per leaf of the output, the index of its tensor or None and then its constant.
        num_parameters: number of parameter elements of the module.
        notes: what the user should know about this capture, each to be read after the model's name.
    """

    graph: fx.Graph
    weights: dict[str, Any]
    input_tree: pytree.TreeSpec
    input_leaves: list[TensorSpec | Any]
    output_tree: pytree.TreeSpec
    output_leaves: list[tuple[int | None, Any]]
    num_parameters: int
    notes: list[str] = field(default_factory=list)


def capture_graph(
    model: Any, example_inputs: tuple[Any, ...], example_kwargs: dict[str, Any] | None = None
) -> CapturedGraph:
    """Capture the module in evaluation mode at the example's shapes.

    Raises:
        InputError: the arguments are not a module and a tuple of inputs.
        Exception: whatever the module or ``torch.export`` raises.
    """
    if isinstance(model, ExportedProgram):
        model = model.module()
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "model is a TorchScript module, which torch.export does not take; give the module it was made of"
        )
    if not isinstance(example_inputs, (tuple, list)):
        raise InputError("example_inputs must be a tuple of inputs, for example (image,)")
    try:
        inspect.signature(model.forward).bind(*example_inputs, **(example_kwargs or {}))
    except TypeError as error:
        raise InputError(f"the example inputs do not fit {type(model).__name__}.forward: {error_text(error)}") from None
    notes: list[str] = []
    with capturing(model, notes):
        args, kwargs = _examples((tuple(example_inputs), dict(example_kwargs or {})))
        program = functional_program(torch.export.export(model, args, kwargs, strict=False), notes)
        return _bind(program, model, notes)


def _examples(inputs: Any) -> Any:
    """Return the inputs with a tensor of its own at every place.

    Export tells inputs apart by the tensor object. The same tensor twice, or one of the module's own, would become one
    input, or none.
    """
    return pytree.tree_map_only(torch.Tensor, _example, inputs)


def _example(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else str(tensor.layout)
        raise InputError(f"example inputs must be dense tensors, not {kind} ones")
    if type(tensor).__torch_dispatch__ is torch._C._disabled_torch_dispatch_impl:
        tensor = tensor.as_subclass(torch.Tensor)
    return tensor.detach().clone()


def _bind(program: ExportedProgram, model: torch.nn.Module, notes: list[str]) -> CapturedGraph:
    """Turn the program's lifted weights into get_attr nodes and keep only the user's inputs and outputs."""
    graph = program.graph
    graph.owning_module = None  # weights live in a dictionary from here on
    signature = program.graph_signature
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    weights: dict[str, Any] = {}
    input_leaves: list[TensorSpec | Any] = []
    for node, spec in zip(placeholders, signature.input_specs, strict=True):
        if spec.kind == InputKind.USER_INPUT:
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor):
                input_leaves.append(TensorSpec.of(value, node.name))
            else:
                input_leaves.append(getattr(spec.arg, "value", value))
                if node.users:  # a number that export left open
                    raise CaptureError(f"input {node.name} of {type(model).__name__} is neither a tensor nor constant")
                graph.erase_node(node)
            continue
        if spec.kind not in _WEIGHT_KINDS:
            raise CaptureError(
                f"{type(model).__name__} holds {spec.target or node.name}, a {spec.kind.name.lower()}, which cannot be "
                "shared between head and tail; keep only tensors in the module"
            )
        target = str(spec.target)
        tensor = program.state_dict.get(target, program.constants.get(target))
        if not isinstance(tensor, torch.Tensor):
            raise CaptureError(f"{type(model).__name__} has no tensor for its weight {target}")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise CaptureError(
                f"{type(model).__name__} holds {target}, a {tensor.layout if not tensor.is_quantized else 'quantized'} "
                "tensor; keep dense tensors in the module (tensor.to_dense(), tensor.dequantize())"
            )
        if node.users:
            weights[node.name] = tensor
            with graph.inserting_before(node):
                attribute = graph.create_node("get_attr", node.name, name=f"{node.name}_")
            attribute.meta = dict(node.meta)
            node.replace_all_uses_with(attribute)
        graph.erase_node(node)

    for node in graph.nodes:
        if node.op == "get_attr" and node.target not in weights:  # the body of a condition or loop
            body = getattr(program.graph_module, str(node.target))
            weights[str(node.target)] = node.meta["submodule"] = body

    output = next(iter(reversed(graph.nodes)))
    results = output.args[0]
    assert isinstance(results, (tuple, list))
    tensors: list[fx.Node] = []
    output_leaves: list[tuple[int | None, Any]] = []
    for result, out_spec in zip(results, signature.output_specs, strict=True):
        if out_spec.kind != OutputKind.USER_OUTPUT:
            continue
        if isinstance(result, fx.Node):
            output_leaves.append((len(tensors), None))
            tensors.append(result)
        else:
            output_leaves.append((None, result))
    output.args = (tuple(tensors),)
    depend_on_values_alone(graph, type(model).__name__)
    graph.eliminate_dead_code()
    call_spec = program.call_spec
    assert call_spec.in_spec is not None
    assert call_spec.out_spec is not None
    return CapturedGraph(
        graph=graph,
        weights=weights,
        input_tree=call_spec.in_spec,
        input_leaves=input_leaves,
        output_tree=call_spec.out_spec,
        output_leaves=output_leaves,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        notes=notes,
    )


def restored(tensors: Sequence[torch.Tensor], leaves: list[tuple[int | None, Any]], tree: pytree.TreeSpec) -> Any:
    """Put tensor leaves back into a structure: per leaf the index of its tensor, or None and then its constant."""
    return pytree.tree_unflatten([constant if index is None else tensors[index] for index, constant in leaves], tree)


def own_weights(weights: dict[str, Any], *, besides: Set[str]) -> None:
    """Replace tensors by copies with the same strides, so that nobody else can change their values.

    A weight that occurs twice is copied once; those named in ``besides`` are nobody else's already.
    """
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    for name, tensor in weights.items():
        if isinstance(tensor, torch.Tensor) and name not in besides:
            key = tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device
            if not tensor.data_ptr() or key not in copies:
                copies[key] = _copy(tensor)
            weights[name] = copies[key]


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy with the same strides; also torch chooses kernels by whether a weight is trained."""
    copied = tensor.detach()
    for dim, stride in enumerate(tensor.stride()):
        copied = copied.narrow(dim, 0, min(1, copied.shape[dim])) if stride == 0 else copied
    copied = copied.clone()
    copied = copied if copied.shape == tensor.shape else copied.expand(tensor.shape)
    return copied.requires_grad_(tensor.requires_grad)


def is_tensor_node(node: fx.Node) -> bool:
    """True when the node's value is one tensor of known shape."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and all(isinstance(size, int) for size in value.shape)


def is_item(node: fx.Node) -> bool:
    """True when the node takes one item out of a tuple-valued node."""
    return node.op == "call_function" and node.target is operator.getitem
