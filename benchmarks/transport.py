"""Bytes over loopback: splitinfer's client and server against bare gRPC, in one run.

The bare server takes raw bytes and answers four; nothing is described, checked or decoded. Bare transfers: one call
(unary), an open bidirectional stream, and a call that sends chunks of 1 MiB. Ours sends a float32 tensor of as many
bytes, and a tail that returns one element; the tail's own computing is taken off, everything else counts. There are
30 ms of computing between transfers as in real use, since a processor that has slept is slower to answer than one in a
loop. Methods take turns of five transfers, of which the first does not count: taking turns after each would measure one
that the caches have forgotten, and the three bare ones, which share code and server, less so. The servers are started
four times: how their memory happens to lie moves a ratio by a tenth. On a machine that others use too, the lower
quartiles tell more than the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median, quantiles

# One thread a side, also in the server, which inherits this. Set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

KIB = 1 << 10
SIZES = (4 * KIB, 98 * KIB, 784 * KIB, 3200 * KIB, 12288 * KIB)
CHUNK = 1 << 20
GAP_S = 0.03
TURN, WARM = 4, 1
STARTS = 4
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def bare_server() -> int:
    """Serve bare bytes until standard input closes."""
    import grpc

    from splitinfer.runtime.malloc import tune_allocator

    tune_allocator()

    def unary(data: bytes, context: grpc.ServicerContext) -> bytes:
        return data[:4]

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for data in requests:
            yield data[:4]

    def chunked(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"".join(requests)[:4]

    server = grpc.server(ThreadPoolExecutor(4), options=OPTIONS)
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
        "Chunked": grpc.stream_unary_rpc_method_handler(chunked),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Bare", methods),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.buffer.read()
    server.stop(None)
    return 0


def split_server() -> int:
    """Serve the tails of the echo models until standard input closes."""
    from splitinfer.runtime import EdgeServer

    with EdgeServer(echo_models()) as server:
        print(server.address, flush=True)
        sys.stdin.buffer.read()
    return 0


def echo_models() -> list:
    """Models whose tail at cut 0 takes a tensor of one of the sizes and returns one element."""
    import torch

    from splitinfer.graph import SplitModel

    class First(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:1, :1] @ torch.ones(1, 1)

    return [SplitModel.capture(First(), (torch.zeros(1, size // 4),), name=str(size)) for size in SIZES]


def start(role: str) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.transport", "--role", role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def bare_methods(port: str) -> dict[str, Callable[[bytes], object]]:
    import grpc

    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
    chunked = channel.stream_unary("/bare.Bare/Chunked")
    outgoing: queue.SimpleQueue = queue.SimpleQueue()
    replies = channel.stream_stream("/bare.Bare/Stream")(iter(outgoing.get, None))

    def stream(data: bytes) -> object:
        outgoing.put(data)
        return next(replies)

    return {
        "unary": channel.unary_unary("/bare.Bare/Unary"),
        "stream": stream,
        "chunked": lambda data: chunked(data[at : at + CHUNK] for at in range(0, len(data), CHUNK)),
    }


def compute(seconds: float) -> None:
    import torch

    matrix = torch.ones(128, 128)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        matrix = matrix @ matrix * 0


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Give the bare server's port and our server's address."""
    bare, port = start("bare")
    split, address = start("split")
    try:
        yield port, address
    finally:
        for process in (bare, split):
            process.stdin.close()
            process.wait(20)
            process.stdout.close()


def measure_once(
    port: str,
    address: str,
    models: dict,
    order: random.Random,
    turns: int,
    gap_s: float,
    times: dict[int, dict[str, list[float]]],
) -> None:
    """Add the seconds of so many turns of each method, by size."""
    import torch

    from splitinfer.runtime import ClientSettings, EdgeClient

    with EdgeClient(address, ClientSettings(allocator_tuning=True)) as client:
        methods = bare_methods(port)
        for size in SIZES:
            model, tensors = models[str(size)], (torch.ones(1, size // 4),)
            # The same bytes: zeros from calloc are one page of the kernel, which stays in the cache however many.
            data = tensors[0].numpy().tobytes()
            runs: dict[str, Callable[[], object]] = {
                name: lambda method=method, data=data: method(data) for name, method in methods.items()
            }
            runs["splitinfer"] = lambda model=model, tensors=tensors: client.run_tail(model, 0, tensors)
            for _ in range(turns):
                names = list(runs)
                order.shuffle(names)
                for name in names:
                    for transfer in range(TURN + WARM):
                        compute(gap_s)
                        begin = time.perf_counter()
                        answer = runs[name]()
                        spent_s = time.perf_counter() - begin
                        if name == "splitinfer":
                            spent_s -= answer.timing.tail_s
                        if transfer >= WARM:
                            times[size][name].append(spent_s)


def measure(repeats: int, gap_s: float) -> dict:
    import torch

    torch.set_num_threads(1)
    models = {model.name: model for model in echo_models()}
    order = random.Random(0)
    times: dict[int, dict[str, list[float]]] = {size: defaultdict(list) for size in SIZES}
    for _ in range(STARTS):
        with servers() as (port, address):
            measure_once(port, address, models, order, -(-repeats // (STARTS * TURN)), gap_s, times)
    table = {size: {name: median(values) * 1e3 for name, values in row.items()} for size, row in times.items()}
    quartile = {size: {name: quantiles(values)[0] * 1e3 for name, values in row.items()} for size, row in times.items()}
    return {
        "name": "transport",
        "ratios": {
            f"{size // KIB} KiB: splitinfer / best bare gRPC, {of}": row["splitinfer"]
            / min(value for name, value in row.items() if name != "splitinfer")
            for of, rows in (("median", table), ("lower quartile", quartile))
            for size, row in rows.items()
        },
        "milliseconds": {f"{size // KIB} KiB": row for size, row in table.items()},
        "gap_s": gap_s,
        "repeats": repeats,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transport", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=80)
    parser.add_argument("--gap-ms", type=float, default=GAP_S * 1e3)
    parser.add_argument("--role", choices=["bare", "split"], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.role:
        return {"bare": bare_server, "split": split_server}[options.role]()
    result = measure(options.repeats, options.gap_ms / 1e3)
    if options.json:
        print(json.dumps(result))
        return 0
    for size, row in result["milliseconds"].items():
        print(f"{size:>10}  " + "  ".join(f"{name} {value:6.2f} ms" for name, value in row.items()))
    for name, ratio in result["ratios"].items():
        print(f"{name:<50} {ratio:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
