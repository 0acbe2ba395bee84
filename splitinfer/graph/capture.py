"""From any module that ``torch.export`` takes to one flat, functional graph with its weights beside it."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import operator
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from splitinfer.errors import CaptureError, InputError
from splitinfer.graph.functionalize import functional_program
from splitinfer.graph.specs import TensorSpec

aten = torch.ops.aten

# Modules that compute something else in training mode; a split model always computes what evaluation mode computes.
_MODE_DEPENDENT = (
    torch.nn.modules.batchnorm._BatchNorm,
    torch.nn.modules.dropout._DropoutNd,
)

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
    """

    graph: fx.Graph
    weights: dict[str, Any]
    input_tree: pytree.TreeSpec
    input_leaves: list[TensorSpec | Any]
    output_tree: pytree.TreeSpec
    output_leaves: list[tuple[int | None, Any]]
    num_parameters: int


def capture_graph(
    model: torch.nn.Module, example_inputs: tuple[Any, ...], example_kwargs: dict[str, Any] | None = None
) -> CapturedGraph:
    """Capture the module in evaluation mode at the example's shapes.

    Raises:
        InputError: the arguments are not a module and a tuple of inputs.
        CaptureError: ``torch.export`` refuses the module; the message names the line and what to do.
    """
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if not isinstance(example_inputs, (tuple, list)):
        raise InputError("example_inputs must be a tuple of inputs, for example (image,)")
    try:
        inspect.signature(model.forward).bind(*example_inputs, **(example_kwargs or {}))
    except TypeError as error:
        raise InputError(f"the example inputs do not fit {type(model).__name__}.forward: {error}") from None
    with _evaluation_mode(model):
        program = _export(model, tuple(example_inputs), dict(example_kwargs or {}))
    return _bind(program, model)


@contextlib.contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    if any(isinstance(module, _MODE_DEPENDENT) for module in training):
        warnings.warn(
            f"{type(model).__name__} is in training mode; it is captured as model.eval() computes", stacklevel=5
        )
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _quiet_export() -> Iterator[None]:
    """Silence what torch.export logs and warns about itself; what it refuses is raised and reported by us."""
    logger = logging.getLogger("torch")
    level = logger.level
    symbolic = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    symbolic_level = symbolic.level
    try:
        logger.setLevel(logging.CRITICAL)
        symbolic.setLevel(logging.CRITICAL)
        # torch prints the graph it had so far to stderr when it gives up.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        symbolic.setLevel(symbolic_level)


def _export(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    with _quiet_export(), torch.no_grad():
        try:
            return functional_program(torch.export.export(model, args, kwargs, strict=False))
        except Exception as error:
            raise CaptureError(_explain(model, error)) from error


def _explain(model: torch.nn.Module, error: Exception) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    where = _last_line_of_user(error)
    if "data-dependent" in reason or "DataDependent" in type(error).__name__:
        advice = (
            "the branch or size depends on the values of a tensor: use torch.where, torch.cond, or capture the part "
            "of the model before it"
        )
    elif "numpy" in reason:
        advice = "keep the computation in torch operators"
    else:
        advice = "rewrite this line with operators that torch.export takes, or capture a submodule without it"
    return f"cannot capture {type(model).__name__}{where}: {reason.rstrip('.')}; {advice}"


def _last_line_of_user(error: Exception) -> str:
    """Name the deepest line of the model's own code (outside torch) on the way to the error."""
    here = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        parts = path.parts
        if "torch" in parts or frame.filename.startswith("<") or here in path.parents:
            continue
        return f" at {path.name}:{frame.lineno} `{frame.line}`"
    return ""


def _bind(program: ExportedProgram, model: torch.nn.Module) -> CapturedGraph:
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
                if node.users:
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
        if node.users:
            weights[node.name] = tensor.detach()
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
    written: list[str] = []
    for result, out_spec in zip(results, signature.output_specs, strict=True):
        if out_spec.kind == OutputKind.BUFFER_MUTATION:
            written.append(str(out_spec.target))
        if out_spec.kind != OutputKind.USER_OUTPUT:
            continue
        if isinstance(result, fx.Node):
            output_leaves.append((len(tensors), None))
            tensors.append(result)
        else:
            output_leaves.append((None, result))
    if written:
        warnings.warn(
            f"{type(model).__name__} writes to its buffers ({', '.join(written)}); the split model leaves them as they "
            "were captured, so that a repeated request gives the same answer",
            stacklevel=4,
        )
    output.args = (tuple(tensors),)
    _drop_copies(graph)
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
    )


def _drop_copies(graph: fx.Graph) -> None:
    """Remove copies, which a functional graph has no need of, and let views accept any memory layout.

    ``view`` needs the strides that were seen at capture. A tensor that has crossed a wire may come with others, and
    ``reshape`` gives the same values from any.
    """
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, OpOverload):
            continue
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        elif node.target == aten.lift_fresh_copy.default or (
            node.target == aten.clone.default and "memory_format" not in node.kwargs
        ):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        elif node.target == aten._assert_tensor_metadata.default:
            graph.erase_node(node)


def is_tensor_node(node: fx.Node) -> bool:
    """True when the node's value is one tensor of known shape."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and all(isinstance(size, int) for size in value.shape)


def is_item(node: fx.Node) -> bool:
    """True when the node takes one item out of a tuple-valued node."""
    return node.op == "call_function" and node.target is operator.getitem
