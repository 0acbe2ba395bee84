"""Random bytes into everything that reads a stranger's: no crash, no hang, no memory beyond the limits.

The handlers of a running edge and of a live run get absurd messages too (``handlers.py``).
With ``atheris`` (pip install atheris) the search follows coverage and keeps a corpus; without it, bytes are changed at
random from the same seeds. Each target may refuse what it gets with an error of splitinfer's own and nothing else.

    python -m benchmarks.faults.fuzz --seconds 60 [--target request] [--corpus DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults.mutations import MOST_BYTES, mutated

# Coverage is of what is imported inside; the libraries around would take minutes to prepare.
try:
    import atheris
except ImportError:
    atheris = None
with contextlib.nullcontext() if atheris is None else atheris.instrument_imports(include=["splitinfer"]):
    from splitinfer.errors import SplitInferError
    from splitinfer.runtime.description import read_description
    from splitinfer.runtime.loop.edge import EdgeTask, RequestAssembly
    from splitinfer.wire import (
        LongMessage,
        Reply,
        Request,
        Wire,
        WireLimits,
        decode_reply,
        encode_request,
        open_request,
        whole_message,
    )
    from splitinfer.wire.messages import encode_reply

_LIMITS = WireLimits(max_message_bytes=1 << 20, max_tensor_bytes=1 << 20, max_decoded_bytes=1 << 20)
_WIRE = Wire(_LIMITS)
_BETWEEN = b"\xfe\xff\xfe"
_SLOW_S, _ATTEMPTS = 1.0, 3  # a pause of the interpreter (garbage, a late import) may fall into one attempt


def request(data: bytes) -> None:
    open_request(data, _WIRE).arrays()


def pieces(data: bytes) -> None:
    """A request in pieces, as they follow each other between two marks."""
    first, *others = data.split(_BETWEEN)
    whole = whole_message(first, others, _LIMITS)
    if whole is not None:
        open_request(whole, _WIRE).arrays()


def reply(data: bytes) -> None:
    decode_reply(data, _WIRE)


def description(data: bytes) -> None:
    from splitinfer.errors import RemoteError

    try:
        read_description(data, _LIMITS)
    except RemoteError:
        return


def assembly(data: bytes) -> None:
    parts = RequestAssembly(max_message_bytes=4096, max_pending_bytes=8192)
    for start in range(0, len(data) - 8, 8):
        task, offset, size, length = data[start], data[start + 1], data[start + 2], data[start + 3]
        parts.add(EdgeTask(0, 0, task, 0, 0), offset, size, data[start : start + length])


def text_files(data: bytes) -> None:
    """Scenario, profile and model card, each from a file of these bytes."""
    from splitinfer.models import load_card
    from splitinfer.profiling.profile import Profile
    from splitinfer.simulation import Scenario

    with tempfile.TemporaryDirectory() as folder:
        for name, load in (("a.toml", Scenario.load), ("b.json", Profile.load), ("c.toml", load_card)):
            file = Path(folder) / name
            file.write_bytes(data)
            try:
                load(file)  # type: ignore[operator]
            except SplitInferError:
                continue


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": request,
    "pieces": pieces,
    "reply": reply,
    "description": description,
    "assembly": assembly,
    "text_files": text_files,
}


def seeds(target: str) -> list[bytes]:
    """Return bytes that a target takes."""
    arrays = [np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros((2, 2), np.int64)]
    if target == "request":
        return [encode_request(Request("plain", "f" * 64, 1, arrays, 7), _WIRE)]
    if target == "pieces":
        (whole,) = seeds("request")
        return [_BETWEEN.join(LongMessage((whole,), len(whole), size).pieces()) for size in (40, 100, 1000)]
    if target == "reply":
        return [encode_reply(Reply(7, arrays), _WIRE), encode_reply(Reply(7, refusal=(3, "no")), _WIRE)]
    if target == "text_files":
        from splitinfer.data import data_folder

        return [
            path.read_bytes()
            for kind, name in (("models", "resnet18.toml"), ("profiles", "alexnet.json"))
            if (path := data_folder(kind) / name).is_file()
        ] or [b"a = 1\n"]
    return [bytes(range(64))]


def check(target: Callable[[bytes], None], data: bytes) -> None:
    """Run a target on bytes; an error of ours is an answer, everything else is a finding.

    Raises:
        AssertionError: it took longer than a second, each time it was tried.
        Exception: what the target raised beside errors of splitinfer's own.
    """
    for _ in range(_ATTEMPTS):
        start = time.thread_time()
        with contextlib.suppress(SplitInferError):
            target(data)
        taken_s = time.thread_time() - start
        if taken_s < _SLOW_S:
            return
    raise AssertionError(f"{taken_s:.1f} s of processor time for {len(data)} bytes, {_ATTEMPTS} times")


def campaign(name: str, seconds: float, seed: int) -> int:
    """Mutate for so long; returns the number of inputs tried."""
    draw, corpus, tried = random.Random(seed), seeds(name), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(draw, draw.choice(corpus))
        tried += 1
        try:
            check(TARGETS[name], data)
        except Exception:
            print(f"{name}: finding with seed {seed} after {tried} inputs: {data!r}", file=sys.stderr)
            raise
        if len(corpus) < 256 and tried % 100 == 0:
            corpus.append(data)
    return tried


def edge_handlers(seconds: float, seed: int) -> str:
    """Attack a running edge for so long; returns what was done."""
    import torch

    from benchmarks.faults.chaos import CARD
    from benchmarks.faults.handlers import MOST_GROWTH_KIB, Victim
    from splitinfer.runtime import EdgeProcess
    from splitinfer.runtime.loading import capture_card

    draw, rounds = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder) / "small.toml"
        card.write_text(CARD)
        edge = EdgeProcess([str(card)])
        with edge, Victim(edge, capture_card(card), torch.ones(1, 3, 16, 16)) as victim:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                victim.throw(draw)
                rounds += 1
                if rounds % 100 == 0:
                    victim.check_well()
            victim.check_well()
            assert victim.growth_kib < MOST_GROWTH_KIB, f"the edge grew by {victim.growth_kib} KiB"
            return f"{6 * rounds} messages to a running edge, which grew by {victim.growth_kib} KiB,"


def live_handlers(seconds: float, seed: int) -> str:
    """Attack a live run of about so many seconds; returns what was done."""
    from benchmarks.faults.handlers import AttackedRun

    with tempfile.TemporaryDirectory() as folder:
        run = AttackedRun(Path(folder), slots=max(400, int(seconds * 1000)))
        run.run(random.Random(seed))
        assert run.right == run.asked, f"{run.right} of {run.asked} answers of the good device are right"
        return f"{run.attacks} strangers in a live run, {run.right} answers right beside them,"


HANDLERS = {"edge_handlers": edge_handlers, "live_handlers": live_handlers}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--target", choices=[*TARGETS, *HANDLERS])
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="folder of atheris' corpus")
    parser.add_argument("--atheris", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.atheris:
        return _atheris(arguments.target, arguments.seconds, arguments.corpus)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 31)
    for name in [arguments.target] if arguments.target else [*TARGETS, *HANDLERS]:
        if name in HANDLERS:
            print(f"{name}: {HANDLERS[name](arguments.seconds, seed)} with seed {seed}, no finding", flush=True)
        elif atheris is not None:
            command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--atheris", "--target", name]
            command += ["--seconds", str(arguments.seconds), "--corpus", str(arguments.corpus)]
            if (code := subprocess.run(command, check=False).returncode) != 0:
                return code
        else:
            print(f"{name}: {campaign(name, arguments.seconds, seed)} inputs with seed {seed}, no finding", flush=True)
    return 0


def _atheris(name: str, seconds: float, corpus: Path) -> int:
    own = corpus / name
    own.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (own / f"seed-{number}").write_bytes(data)
    options = [sys.argv[0], str(own), f"-max_total_time={int(seconds)}", f"-max_len={MOST_BYTES}", "-timeout=5"]
    atheris.Setup([*options, "-rss_limit_mb=2048"], lambda data: check(TARGETS[name], data))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
