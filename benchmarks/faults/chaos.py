"""The fault campaign: tasks under random faults, every one of which ends once, with the right answer or a report.

The edge is a process that is killed, restarted and stopped; a proxy between it and the devices delays, slows,
silences, cuts, closes one end and corrupts. It goes over TLS, since nothing else notices a turned bit. A client asks
and reads nothing; the wall clock of both ends jumps (``clock.py``); where the kernel has netem and lets us, packets are
lost in a network namespace of the campaign's own. The seed is printed and decides which faults come in which order;
when they meet which task depends on the machine, and the verdict must not. At the end a live run writes its trace to a
disk that is full, while the clock jumps.

    python -m benchmarks.faults.chaos --tasks 10000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.faults import clock, netem
from benchmarks.faults.proxy import Proxy
from benchmarks.load import resources
from splitinfer.errors import RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeProcess, ServerSettings
from splitinfer.runtime.certificates import write_certificates
from splitinfer.runtime.loading import capture_card
from splitinfer.runtime.security import ClientSecurity, ServerSecurity
from splitinfer.runtime.transport import INFER_STREAM, open_channel

CARD = """
source = "benchmarks.faults.chaos:small_model"
seed = 0
[[inputs]]
shape = [3, 16, 16]
[preprocessing]
resize = 16
"""
POLICIES = ("fallback", "wait", "fail")
FAULTS = (
    *("kill", "stop", "cut", "silence", "half open", "delay", "slow", "slow reader", "corrupt", "peace"),
    *("clock", "loss"),  # where this machine can
)
_INPUTS = 16
_PACE_S = 0.02
_UNREAD = 2000
_DISK = "16k"
_INNER = "SPLITINFER_CHAOS"
_LONGEST_JUMP_S = 20 * 3600
"""Within a day, since certificates begin a day before they are made."""


def small_model() -> nn.Module:
    """Return a model whose halves take a fraction of a millisecond."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 12 * 12, 10)
    )


@dataclass
class Outcome:
    """What became of the tasks."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    unexpected: list[str] = field(default_factory=list)
    retries: int = 0
    slowest_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            **vars(self),
            "answered": dict(self.answered),
            "failed": dict(self.failed),
            "faults": dict(self.faults),
        }


class Campaign:
    """Tasks of several clients under faults.

    Args:
        folder: for the card and the certificates.
        tasks: in all.
        seed: of the faults and of what tasks ask.
        clients: at the same time; their policies take turns.
    """

    def __init__(self, folder: Path, *, tasks: int, seed: int, clients: int = 6) -> None:
        (folder / "small.toml").write_text(CARD)
        write_certificates(folder, ["127.0.0.1"])
        self.outcome = Outcome()
        self._card = str(folder / "small.toml")
        self._tasks, self._seed, self._clients = tasks, seed, clients
        self._split: SplitModel = capture_card(self._card)
        self._inputs = [torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(n)) for n in range(_INPUTS)]
        self._answers = [self._split(each) for each in self._inputs]
        self._server = ServerSettings(
            security=ServerSecurity(str(folder / "server.crt"), str(folder / "server.key")), drain_s=0.5
        )
        self._settings = ClientSettings(
            deadline_s=4.0,
            try_s=1.0,
            retries=4,
            probe_s=0.2,
            longest_probe_s=1.0,
            keepalive_s=1.0,
            security=ClientSecurity(str(folder / "ca.crt")),
        )
        self._lock = threading.Lock()
        self._left = tasks
        self._done = threading.Event()

    def run(self) -> Outcome:
        """Run all tasks while faults come and go; the last tasks have peace."""
        with contextlib.ExitStack() as stack:
            edge = EdgeProcess([self._card], self._server)
            edge.start()
            edge.wait_ready()
            port = int(edge.address.rpartition(":")[2])
            self._edges = [edge]
            stack.callback(lambda: self._edges[0].kill())
            proxy = stack.enter_context(Proxy(port, self._seed))
            breaker = threading.Thread(target=self._break, args=(proxy, port), name="faults")
            breaker.start()
            workers = [
                threading.Thread(target=self._work, args=(number, proxy.address), name=f"device {number}")
                for number in range(self._clients)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            self._done.set()
            breaker.join()
        return self.outcome

    def _break(self, proxy: Proxy, port: int) -> None:
        draw = random.Random(self._seed)
        cannot = {"clock": not clock.can_jump(), "loss": not netem.is_here()}
        faults = [fault for fault in FAULTS if not cannot.get(fault)]
        while not self._done.wait(draw.uniform(0.1, 0.6)):
            fault = draw.choice(faults)
            self.outcome.faults[fault] += 1
            last_s = draw.uniform(0.2, 2.0)
            edge = self._edges[0]
            if fault == "kill":
                edge.kill()
                settings = ServerSettings(**{**vars(self._server), "port": port})
                self._edges[0] = edge = EdgeProcess([self._card], settings)
                edge.start()
                edge.wait_ready()
            elif fault == "stop":
                os.kill(edge.pid, signal.SIGSTOP)
                self._done.wait(last_s)
                os.kill(edge.pid, signal.SIGCONT)
            elif fault == "cut":
                proxy.cut()
            elif fault == "silence":
                proxy.is_silent = True
                self._done.wait(last_s)
                proxy.heal()
                proxy.cut()  # as a network that comes back: the old connections are of no use
            elif fault == "delay":
                proxy.delay_s = draw.uniform(0.001, 0.05)
                self._done.wait(last_s)
            elif fault == "slow":
                proxy.bytes_per_s = draw.choice((20_000, 100_000))
                self._done.wait(last_s)
            elif fault == "half open":
                proxy.half_close(of_server=draw.random() < 0.5)
            elif fault == "slow reader":
                proxy.read_bytes_per_s = draw.choice((2_000, 20_000))
                with self._reads_nothing(edge.address):
                    self._done.wait(last_s)
            elif fault == "corrupt":
                proxy.corrupt_next = draw.randrange(1, 4)
                self._done.wait(last_s)
            elif fault == "clock":
                clock.jump_to(draw.randrange(-_LONGEST_JUMP_S, _LONGEST_JUMP_S))
            elif fault == "loss":
                with netem.losing(draw.uniform(1, 20), delay_ms=draw.uniform(0, 30)):
                    self._done.wait(last_s)
            proxy.heal()

    @contextlib.contextmanager
    def _reads_nothing(self, address: str) -> Iterator[None]:
        """Let a stranger ask the edge for many answers, and take none."""
        request = b"\x0a\x00"  # refused, which is an answer too
        channel = open_channel(address, self._settings)
        asked = iter([request] * _UNREAD)
        call = channel.stream_stream(INFER_STREAM)(asked)
        try:
            yield
        finally:
            call.cancel()
            channel.close()

    def _work(self, number: int, address: str) -> None:
        policy = POLICIES[number % len(POLICIES)]
        draw = random.Random((self._seed << 8) + number)
        # Half of the clients hold a stream open, the others make calls.
        settings = ClientSettings(**{**vars(self._settings), "stream_up_to_bytes": 1 << 20 if number % 2 else 0})
        with EdgeClient(address, settings, on_failure=policy) as client:  # type: ignore[arg-type]
            while True:
                with self._lock:
                    if self._left == 0:
                        return
                    self._left -= 1
                self._one(client, policy, draw)
                time.sleep(_PACE_S)

    def live_run(self, folder: Path, seconds: float) -> dict[str, Any]:
        """Run the scheduler in the loop for so long, with its trace on a full disk and a clock that jumps."""
        from splitinfer.profiling import profile
        from splitinfer.simulation import Scenario

        scenario = Scenario(
            name="small",
            services=(profile(Path(self._card)),),
            num_devices=2,
            arrival_rate_hz=8.0,
            slots_per_period=5,
            cycles_per_mac=20.0,
            bandwidth_hz=2e5,
        )
        scenario.save(folder / "small-world.toml")
        command = [sys.executable, "-m", "splitinfer", "run", "--scenario", str(folder / "small-world.toml"), "--json"]
        command += ["--card", self._card, "--duration", str(seconds), "--lease-s", "5", "--on-failure", "fallback"]
        command = _on_a_full_disk(folder, command)
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        draw = random.Random(self._seed)
        said = threading.Thread(target=lambda: report.extend(run.communicate()))
        report: list[str] = []
        said.start()
        while said.is_alive():
            if clock.can_jump():
                clock.jump_to(draw.randrange(-_LONGEST_JUMP_S, _LONGEST_JUMP_S))
            said.join(0.5)
        out, errors = report
        result = json.loads(out) if out.strip() else {}
        is_full = "No space left on device" in errors
        return {
            "holds": run.returncode == 0 and is_full and "Traceback" not in errors,
            "exit code": run.returncode,
            "said": errors.strip().splitlines(),
            **{key: result.get(key) for key in ("checked", "wrong", "finished", "lost")},
        }

    def _one(self, client: EdgeClient, policy: str, draw: random.Random) -> None:
        which, cut = draw.randrange(_INPUTS), draw.randrange(self._split.num_cuts)
        start = time.perf_counter()
        outcome = self.outcome
        try:
            result = client.infer(self._split, cut, self._inputs[which])
        except RemoteError as error:
            with self._lock:
                outcome.failed[policy] += 1
                if policy != "fail":
                    outcome.unexpected.append(f"{policy}: {error}")
            return
        except Exception as error:  # noqa: BLE001 - whatever else it is, the campaign reports it
            with self._lock:
                outcome.unexpected.append(f"{policy}: {type(error).__name__}: {error}")
            return
        right = torch.equal(result.output, self._answers[which])
        with self._lock:
            outcome.answered[f"{policy}, at the {result.ran_at}"] += 1
            outcome.retries += result.retries
            outcome.wrong += not right
            outcome.slowest_s = max(outcome.slowest_s, time.perf_counter() - start)
            if result.ran_at == "device" and policy != "fallback":
                outcome.unexpected.append(f"{policy}: ran at the device")


def reconnect(address: str, settings: ClientSettings, split: SplitModel, image: torch.Tensor, times: int) -> None:
    """Open a client, ask once and close it, many times."""
    for _ in range(times):
        with EdgeClient(address, settings) as client:
            client.infer(split, 1, image)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed by default")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--reconnects", type=int, default=1000)
    parser.add_argument("--live-s", type=float, default=10.0, help="length of the live run; 0 makes none")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    if _INNER not in os.environ:
        return _with_faults_of_the_machine(sys.argv[1:] if argv is None else argv)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        campaign = Campaign(Path(folder), tasks=arguments.tasks, seed=seed, clients=arguments.clients)
        report: dict[str, Any] = {"seed": seed, "tasks": arguments.tasks} | campaign.run().to_dict()
        report["seconds"] = time.perf_counter() - start
        report["reconnects"] = measure_reconnects(campaign, arguments.reconnects)
        report["live run"] = campaign.live_run(Path(folder), arguments.live_s) if arguments.live_s else None
    ended = sum(report["answered"].values()) + sum(report["failed"].values())
    report["holds"] = ended == arguments.tasks and report["wrong"] == 0 and not report["unexpected"]
    report["holds"] &= report["live run"] is None or report["live run"]["holds"]
    print(json.dumps(report, indent=None if arguments.json else 2))
    return 0 if report["holds"] else 1


def _with_faults_of_the_machine(argv: Sequence[str]) -> int:
    """Run the campaign as a process whose clock can jump and whose packets can be lost, as far as this machine can."""
    command = [sys.executable, "-m", "benchmarks.faults.chaos", *argv]
    environment = os.environ | {_INNER: "1", "GRPC_VERBOSITY": "NONE"}  # it says every turned bit in five lines
    with clock.jumping_clock() as shifted:
        if isinstance(shifted, str):
            print(f"no clock jumps: {shifted}", file=sys.stderr, flush=True)
        else:
            environment |= shifted
        prefix = netem.namespace()
        if isinstance(prefix, str):
            print(f"no netem, only the proxy: {prefix}", file=sys.stderr, flush=True)
            prefix = []
        return subprocess.run([*prefix, *command], env=environment, check=False).returncode


def _on_a_full_disk(folder: Path, command: list[str]) -> list[str]:
    """Return the command, with a trace that goes to a disk which fills up, or is full where none can be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount += [f'mount -t tmpfs -o size={_DISK} none "$1" && shift && exec "$@"', "sh", str(disk)]
    try:
        can_mount = subprocess.run([*mount, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        can_mount = False
    return [*mount, *command, "--trace", str(disk / "trace.jsonl")] if can_mount else [*command, "--trace", "/dev/full"]


def measure_reconnects(campaign: Campaign, times: int) -> dict[str, Any]:
    """Return resources before and after so many connections, after a first hundred."""
    with EdgeProcess([campaign._card], campaign._server) as edge:
        settings, split, image = campaign._settings, campaign._split, campaign._inputs[0]
        with EdgeClient(edge.address, settings) as held:  # without any, gRPC ends its own threads
            held.infer(split, 1, image)
            reconnect(edge.address, settings, split, image, min(100, times))
            before = resources(os.getpid())
            reconnect(edge.address, settings, split, image, times)
            return {"times": times, "before": before, "after": resources(os.getpid())}


if __name__ == "__main__":
    sys.exit(main())
