"""Many devices on one edge: goodput, latency, and whether memory, threads and descriptors stay flat.

64 devices with 4 services each, every service a thread that sends requests for the tail of a small model. First a few
of them send as fast as they get answers, which gives the peak; then requests of all come at random times, at 0.7 times
the peak for ``--seconds``, and at twice the peak. Devices and edge share this machine.

Goodput counts answers within two seconds of when the request was due, not of when its thread came to send it. A thread
that the edge has told to wait falls behind, and gives up what can no longer be answered in time: what is older than the
deadline less the longest wait that the edge allows.

    python -m benchmarks.load --seconds 600
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

CARD = """
source = "benchmarks.load:model"
seed = {seed}
[[inputs]]
shape = [1024]
"""
_DEADLINE_S = 2.0
_MAX_WAIT_S = _DEADLINE_S / 4
_LAYERS = 12
_PEAK_SENDERS = 16
_SAMPLES = 20


def model() -> Any:
    """Return a model with small requests and tails of milliseconds, so that the edge is the bottleneck."""
    from torch import nn

    layers: list[nn.Module] = []
    for _ in range(_LAYERS):
        layers += [nn.Linear(1024, 1024), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


_CUT = 1


class Load:
    """Threads that send; counts and latencies of one phase."""

    def __init__(self, clients: list[Any], requests: list[tuple[Any, Any]], seed: int) -> None:
        self._clients, self._requests, self._seed = clients, requests, seed

    def phase(self, seconds: float, rate_hz: float | None, senders: int | None = None) -> dict[str, float]:
        """Send for so long, as fast as answers come or at so many requests a second in all; return what came back.

        ``senders`` are the first so many threads; all by default.
        """
        from splitinfer.errors import RemoteError

        ends = time.perf_counter() + seconds
        lock = threading.Lock()
        counts: Counter[str] = Counter()
        latencies: list[float] = []
        each_hz = None if rate_hz is None else rate_hz / (len(self._clients) * len(self._requests))

        def send(client: Any, model: Any, tensors: Any, draw: random.Random) -> None:
            own: Counter[str] = Counter()
            took: list[float] = []
            due = time.perf_counter() + (draw.random() / each_hz if each_hz else 0.0)
            while True:
                now = time.perf_counter()
                if max(now, due) >= ends:
                    break
                if each_hz:
                    if due > now:
                        time.sleep(due - now)
                    start = due
                    due += draw.expovariate(each_hz)
                    if time.perf_counter() - start > _DEADLINE_S - _MAX_WAIT_S:
                        own["too late to send"] += 1
                        continue
                else:
                    start = now
                try:
                    client.run_tail(model, _CUT, tensors)
                    took.append(time.perf_counter() - start)
                    own["answered"] += 1
                except RemoteError as error:
                    own[error.status] += 1
                    time.sleep(error.retry_after_s or 0.0)
            with lock:
                counts.update(own)
                latencies.extend(took)

        threads = [
            threading.Thread(target=send, args=(client, model, tensors, random.Random(f"{self._seed} {n} {m}")))
            for n, client in enumerate(self._clients)
            for m, (model, tensors) in enumerate(self._requests)
        ][:senders]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - begin
        latencies.sort()
        in_time = sum(each <= _DEADLINE_S for each in latencies)
        quantile = {p: latencies[int(p / 100 * (len(latencies) - 1))] * 1e3 if latencies else 0.0 for p in (50, 99)}
        return {
            "seconds": took_s,
            "goodput_hz": in_time / took_s,
            "answered_hz": len(latencies) / took_s,
            "p50_ms": quantile[50],
            "p99_ms": quantile[99],
            **counts,
        }


def measure(devices: int, services: int, seconds: float, seed: int) -> dict[str, Any]:
    import torch

    from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, ModelId, ServerSettings
    from splitinfer.runtime.loading import capture_card

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cards = []
        for number in range(services):
            cards.append(Path(folder) / f"service{number}.toml")
            cards[-1].write_text(CARD.format(seed=number))
        with EdgeProcess([str(card) for card in cards], ServerSettings(max_wait_s=_MAX_WAIT_S)) as edge:
            requests = []
            for card in cards:
                split = capture_card(card)
                arrays = [t.numpy() for t in split.run_head(_CUT, torch.ones(1, 1024))]
                requests.append((ModelId(split.name, split.fingerprint), arrays))
            settings = ClientSettings(deadline_s=_DEADLINE_S, retries=0)
            clients = [EdgeClient(edge.address, settings) for _ in range(devices)]
            try:
                load = Load(clients, requests, seed)
                load.phase(max(3.0, seconds / 20), None)  # warm: connections, compiled tails, allocators
                peak = load.phase(max(5.0, seconds / 10), None, _PEAK_SENDERS)
                load.phase(max(3.0, seconds / 20), 0.7 * peak["goodput_hz"])
                before = resources(edge.pid)
                with Followed(edge.pid, seconds / _SAMPLES) as followed:
                    steady = load.phase(seconds, 0.7 * peak["goodput_hz"])
                after = resources(edge.pid)
                twice = load.phase(max(5.0, seconds / 10), 2.0 * peak["goodput_hz"])
            finally:
                for client in clients:
                    client.close()
    return {
        "devices": devices,
        "services": services,
        "peak": peak,
        "steady": steady,
        "twice": twice,
        "edge_before": before,
        "edge_after": after,
        "edge_resident_kib": followed.resident_kib,
        "ratios": {
            "goodput at twice the peak's demand / peak": twice["goodput_hz"] / peak["goodput_hz"],
            "memory of the edge after / before": after["resident_kib"] / before["resident_kib"],
            "memory of the edge after / half way": after["resident_kib"] / followed.half_way_kib,
        },
    }


class Followed:
    """The resident memory of a process while in the block, KiB, every so many seconds."""

    def __init__(self, pid: int, every_s: float) -> None:
        self.resident_kib = [resources(pid)["resident_kib"]]
        self._pid, self._every_s = pid, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    @property
    def half_way_kib(self) -> int:
        return self.resident_kib[len(self.resident_kib) // 2]

    def __enter__(self) -> Followed:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(self._every_s):
            self.resident_kib.append(resources(self._pid)["resident_kib"])


def resources(pid: int) -> dict[str, int]:
    """Return a process's threads, descriptors and resident KiB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "threads": int(fields["Threads"]),
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "resident_kib": int(fields["VmRSS"].split()[0]),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--services", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0, help="at 0.7 times the peak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    report = measure(options.devices, options.services, options.seconds, options.seed)
    print(json.dumps(report, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
