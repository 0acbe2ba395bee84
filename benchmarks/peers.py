"""ResNet-18 whole and split by what people use, beside ours: latency of a request, and requests a second in a pipeline.

Every process has one thread. Whole models run in this process: eager PyTorch, ``torch.compile``, and ONNX Runtime on
torch's own export. Splits run in two processes after the same layer (the end of ``layer1``, 784 KiB): a two-rank
``torch.distributed.pipelining`` over gloo, tensors pickled over a socket as research code does it, and ours with each
engine that is installed. Methods take turns, round by round; the median round counts. Splits have two cores where whole
models have one: compare latencies with all of them, throughput of splits among splits.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

# One thread a process, also in those that inherit this. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MODEL, LAYER, SPLIT_POINT = "resnet18", "layer2.0.conv1", "layer2"
WINDOW = 3


@dataclass(frozen=True)
class Method:
    """One way to compute an answer.

    Attributes:
        once: computes one answer.
        many: computes so many answers, overlapping what it can.
    """

    once: Callable[[], Any]
    many: Callable[[int], Any]


def _whole() -> tuple[Any, Any]:
    import torch

    from splitinfer.torchvision_compat import import_torchvision

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return import_torchvision().models.get_model(MODEL, weights=None).eval(), torch.randn(1, 3, 224, 224)


def _halves() -> tuple[Any, Any, Any]:
    from torch import nn

    model, image = _whole()
    layers = list(model.children())
    # torchvision's order of a ResNet: conv1, bn1, relu, maxpool, layer1..4, avgpool, fc.
    return nn.Sequential(*layers[:5]), nn.Sequential(*layers[5:9], nn.Flatten(), layers[9]), image


def _repeat(once: Callable[[], Any]) -> Method:
    return Method(once, lambda count: [once() for _ in range(count)])


def eager() -> Method:
    """PyTorch as it is."""
    model, image = _whole()
    return _repeat(lambda: model(image))


def compiled() -> Method:
    """``torch.compile`` with its defaults."""
    import torch

    model, image = _whole()
    fast = torch.compile(model)
    fast(image)
    return _repeat(lambda: fast(image))


def onnxruntime_whole(folder: Path) -> Method:
    """ONNX Runtime on what torch exports."""
    import onnxruntime
    import torch

    model, image = _whole()
    file = folder / "whole.onnx"
    torch.onnx.export(model, (image,), file, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: image.numpy()}
    return _repeat(lambda: session.run(None, given))


def _send(connection: socket.socket, value: Any) -> None:
    import pickle

    data = pickle.dumps(value)
    connection.sendall(struct.pack("!Q", len(data)) + data)


def _receive(connection: socket.socket) -> Any:
    import pickle

    def exactly(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = connection.recv(count - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    return pickle.loads(exactly(struct.unpack("!Q", exactly(8))[0]))


def serve_pickles(port: int) -> None:
    """The other end of ``pickled``: run the tail on each tensor that comes."""
    import torch

    _, tail, _ = _halves()
    with socket.create_connection(("127.0.0.1", port)) as connection, torch.no_grad():
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                _send(connection, tail(_receive(connection)))
        except EOFError:
            return


@contextmanager
def pickled() -> Iterator[Method]:
    """Head here, tail there, one pickled tensor after the other over a socket."""
    head, _, image = _halves()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        child = subprocess.Popen([sys.executable, "-m", "benchmarks.peers", "--serve-pickles", str(port)])
        connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def once() -> Any:
        _send(connection, head(image))
        return _receive(connection)

    def many(count: int) -> None:
        under_way = 0
        for _ in range(count):
            _send(connection, head(image))
            under_way += 1
            if under_way == WINDOW:
                _receive(connection)
                under_way -= 1
        for _ in range(under_way):
            _receive(connection)

    try:
        yield Method(once, many)
    finally:
        connection.close()
        child.wait()


def run_rank(rank: int, store: str) -> None:
    """One rank of ``pipelined``: reads numbers of microbatches from standard input (rank 0), runs, says when done."""
    import torch
    import torch.distributed as dist
    from torch.distributed.pipelining import ScheduleGPipe, SplitPoint, pipeline

    model, image = _whole()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    pipe = pipeline(model, mb_args=(image,), split_spec={SPLIT_POINT: SplitPoint.BEGINNING})
    with torch.no_grad():
        while True:
            wanted = torch.zeros(1, dtype=torch.int64)
            if rank == 0:
                line = sys.stdin.readline()
                wanted[0] = int(line) if line.strip() else 0
            dist.broadcast(wanted, 0)
            count = int(wanted)
            if not count:
                break
            stage = pipe.build_stage(rank, torch.device("cpu"))
            schedule = ScheduleGPipe(stage, count)
            if rank == 0:
                schedule.step(image.repeat(count, 1, 1, 1))
                dist.barrier()
                print("done", flush=True)
            else:
                schedule.step()
                dist.barrier()
    dist.destroy_process_group()


@contextmanager
def pipelined(folder: Path) -> Iterator[Method]:
    """Two ranks of ``torch.distributed.pipelining`` over gloo; many answers are microbatches of one batch."""
    command = [sys.executable, "-m", "benchmarks.peers", "--store", str(folder / "store"), "--rank"]
    last = subprocess.Popen([*command, "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = subprocess.Popen(
        [*command, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert first.stdin is not None
    assert first.stdout is not None

    def many(count: int) -> None:
        print(count, file=first.stdin, flush=True)
        if first.stdout.readline().strip() != "done":  # type: ignore[union-attr]
            raise RuntimeError("torch.distributed.pipelining ended")

    try:
        many(1)
        yield Method(lambda: many(1), many)
    finally:
        first.stdin.close()
        first.wait()
        last.wait()


@contextmanager
def ours(engine: str) -> Iterator[Method]:
    """splitinfer, device and edge in processes of their own."""
    import torch

    from splitinfer.models import CaptureOptions
    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, ServerSettings
    from splitinfer.runtime.loading import capture_card

    torch.set_num_threads(1)
    options = CaptureOptions(engine=engine)
    split = capture_card(MODEL, options)
    k = split.find_cut(LAYER) - 1  # what crosses before that layer is the end of the one before
    image = torch.randn(1, 3, 224, 224)
    with (
        EdgeProcess([MODEL], ServerSettings(parallel_tails=1), options=options) as edge,
        EdgeClient(edge.address, ClientSettings(allocator_tuning=True)) as client,
    ):
        yield Method(
            lambda: client.infer(split, k, image).output,
            lambda count: [result.output for result in client.stream(split, k, [image] * count, window=WINDOW)],
        )


def measure(rounds: int, requests: int) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return milliseconds and requests a second of each method, and why others are not there."""
    import torch

    from benchmarks.streaming import installed_engines

    methods: dict[str, Method] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        makers: dict[str, Callable[[], Any]] = {
            "eager, whole": eager,
            "torch.compile, whole": compiled,
            "ONNX Runtime, whole": lambda: onnxruntime_whole(folder),
            "pickle over a socket": pickled,
            "torch.distributed.pipelining": lambda: pipelined(folder),
            **{f"splitinfer, {name}": (lambda name=name: ours(name)) for name in installed_engines()},
        }
        stack.enter_context(torch.no_grad())
        for name, make in makers.items():
            try:
                made = make()
                methods[name] = made if isinstance(made, Method) else stack.enter_context(made)
                methods[name].once()
                methods[name].many(2)
            except Exception as error:  # noqa: BLE001 - a peer that does not run here is said, and the others are measured
                methods.pop(name, None)
                absent[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        seen: dict[str, dict[str, list[float]]] = {name: {"ms": [], "per_s": []} for name in methods}
        for turn in range(rounds + 1):
            for name, method in methods.items():
                times = []
                for _ in range(5):
                    start = time.perf_counter()
                    method.once()
                    times.append(time.perf_counter() - start)
                start = time.perf_counter()
                method.many(requests)
                if turn:
                    seen[name]["ms"].append(median(times) * 1e3)
                    seen[name]["per_s"].append(requests / (time.perf_counter() - start))
    return {name: {part: median(values) for part, values in own.items()} for name, own in seen.items()}, absent


def main(argv: list[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--serve-pickles", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve_pickles is not None:
        serve_pickles(options.serve_pickles)
        return 0
    if options.rank is not None:
        run_rank(options.rank, options.store)
        return 0
    table, absent = measure(options.rounds, options.requests)
    if options.json:
        base = table["eager, whole"]["ms"]
        ratios = {f"{name}: latency / eager": row["ms"] / base for name, row in table.items()}
        print(json.dumps({"name": "peers", "ratios": ratios, "methods": table, "absent": absent}))
        return 0
    print("| method | latency ms | requests/s |\n| --- | ---: | ---: |")
    for name, row in table.items():
        print(f"| {name} | {row['ms']:.1f} | {row['per_s']:.1f} |")
    for name, why in absent.items():
        print(f"\n{name} did not run here: {why}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
