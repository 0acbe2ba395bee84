"""A device without torch: heads were exported to another runtime, whose tensors are arrays of numpy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from splitinfer.graph import SplitModel
from splitinfer.runtime import EdgeProcess

# Runs in a process of its own. None in sys.modules makes every import of a name fail.
DEVICE = """
import asyncio, json, sys
sys.modules.update(torch=None, torchvision=None, cvxpy=None, numba=None, scipy=None)
import numpy as np
import splitinfer
import splitinfer.wire
import splitinfer.runtime.client
import splitinfer.runtime.loop.attendance
import splitinfer.runtime.loop.device
import splitinfer.runtime.loop.device_run
from splitinfer.errors import InputError, ModelMismatchError, RemoteError
from splitinfer.runtime import AsyncEdgeClient, EdgeClient, ModelId
from splitinfer.scheduling import allocate_local
from splitinfer.wire import Reply, Wire, decode_reply, encode_reply

address, folder, order = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = ModelId(order["name"], order["fingerprint"])
tensors = [np.load(f"{folder}/{index}.npy") for index in range(order["tensors"])]

trip = decode_reply(encode_reply(Reply(1, tensors), Wire()), Wire()).tensors
assert all(np.array_equal(got, sent) for got, sent in zip(trip, tensors, strict=True))

with EdgeClient(address) as edge:
    description = edge.describe().models[model.name]
    assert list(map(str, description.cuts[order["cut"]].crossing)) == order["crossing"]
    exact = edge.run_tail(model, order["cut"], tensors)
    rounded = edge.run_tail(model, order["cut"], tensors, codec="float16")
    for index, output in enumerate(exact.output):
        np.save(f"{folder}/exact{index}.npy", output)
    assert rounded.bytes_up < exact.bytes_up
    assert 0 < max(np.abs(a - b).max() for a, b in zip(exact.output, rounded.output, strict=True)) < 0.1

    for wrong, error in (
        (lambda: edge.run_tail(model, 99, tensors), RemoteError),
        (lambda: edge.run_tail(model, "layer2", tensors), InputError),
        (lambda: edge.run_tail(model, order["cut"], tensors[:-1]), RemoteError),
        (lambda: edge.run_tail(ModelId(model.name, "ab" * 32), order["cut"], tensors), ModelMismatchError),
    ):
        try:
            wrong()
        except error:
            continue
        raise AssertionError("this should be refused")

async def once_more():
    async with AsyncEdgeClient(address) as edge:
        return (await edge.run_tail(model, order["cut"], tensors)).output

for a, b in zip(asyncio.run(once_more()), exact.output, strict=True):
    assert np.array_equal(a, b)
frequency = allocate_local(
    np.array([1e8]), slot_s=0.01, energy_weight=1e20, energy_coefficient=1e-28, max_frequency_hz=1e9
)
expected_hz = (1e8 / (3 * 1e20 * 1e-28)) ** 0.5
assert abs(frequency[0] - expected_hz) <= 1e-12 * expected_hz
assert sys.modules["torch"] is None
print("done")
"""


def test_arrays_cross_the_wire_and_come_back_in_a_process_without_torch(
    edge: EdgeProcess, models: dict[str, SplitModel], tmp_path: Path
) -> None:
    split = models["branchy"]
    cut = max(range(split.num_cuts), key=lambda k: len(split.cuts[k].crossing))
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tensors = split.run_head(cut, image)
    assert len(tensors) > 1
    for index, tensor in enumerate(tensors):
        np.save(tmp_path / f"{index}.npy", tensor.numpy())
    order = {
        "name": "branchy",
        "fingerprint": split.fingerprint,
        "cut": cut,
        "tensors": len(tensors),
        "crossing": [str(spec) for spec in split.cuts[cut].crossing],
    }
    command = [sys.executable, "-c", DEVICE, edge.address, str(tmp_path), json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    # A file is row-major, whatever the tensor was, and kernels are chosen by that: the tail of what the device had.
    stored = tuple(torch.from_numpy(np.load(tmp_path / f"{index}.npy")) for index in range(len(tensors)))
    for index, leaf in enumerate(split.run_tail_leaves(cut, stored)):
        assert np.load(tmp_path / f"exact{index}.npy").tobytes() == leaf.numpy().tobytes()
