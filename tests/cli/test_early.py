"""What is wrong with a command line is said at once: before torch is imported, which takes a second or more."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

MISTAKES = {
    "serve --port {taken}": "cannot listen on 127.0.0.1:{taken}: another program listens there",
    "serve --web-port {taken} --port 0": "--web-port: cannot listen",
    "serve --metrics-port {taken} --port 0": "--metrics-port: cannot listen",
    "serve --engine onnx --port 0": "engine: no 'onnx'",
    "serve --batch 3 --port 0": "batch must be one of",
    "serve --token-file absent --port 0": "cannot read absent",
    "serve --host 1.2.3.4": "the connection is not encrypted",
    "edge --port {taken}": "cannot listen on 127.0.0.1:{taken}",
    "edge --web-port {taken} --port 0": "--web-port: cannot listen",
    "edge --scenario absent": "no preset 'absent'",
    "edge --policy absent --port 0": "policy: no 'absent'",
    "edge --engine onnx --port 0": "engine: no 'onnx'",
    "run --policy absent": "policy: no 'absent'",
    "run --engine onnx": "engine: no 'onnx'",
    "run --on-failure wait": "take fallback or fail",
    "run --web-port {taken}": "--web-port: cannot listen",
    "device --index 9 --server 127.0.0.1:1": "the scenario has devices 0..",
    "device --engine onnx --index 0 --server 127.0.0.1:1": "engine: no 'onnx'",
    "infer resnet18 --cut 1 --input absent.jpg": "absent.jpg",
    "infer resnet18 --cut 1 --engine onnx --input {photo}": "engine: no 'onnx'",
    "infer resnet18 --cut 1 --codec zip --input {photo}": "zip",
    "profile resnet18 --engine onnx": "engine: no 'onnx'",
    "profile resnet18 --input-size 3x": "--input-size",
}
TRY = """
import io, json, sys
from contextlib import redirect_stderr
from splitinfer.cli.main import main
said = []
for line in json.load(sys.stdin):
    with redirect_stderr(io.StringIO()) as errors:
        code = main(line.split())
    said.append([code, errors.getvalue(), "torch" in sys.modules])
print(json.dumps(said))
"""


def test_mistakes_are_said_before_torch_is_imported() -> None:
    photo = Path(__file__).parents[2] / "docs" / "live_page.png"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"taken": taken.getsockname()[1], "photo": photo}
        lines = [line.format(**values) for line in MISTAKES]
        done = subprocess.run(
            [sys.executable, "-c", TRY],
            input=json.dumps(lines),
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            check=True,
        )
    for line, words, (code, errors, has_torch) in zip(lines, MISTAKES.values(), json.loads(done.stdout), strict=True):
        assert code == 2, (line, errors)
        assert words.format(**values) in errors, line
        assert not has_torch, line
