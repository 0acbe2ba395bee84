"""Regenerates the protobuf code from ``splitinfer.proto``: ``python -m splitinfer.wire.generate``.

Needs ``grpcio-tools`` (in the ``dev`` extra). The service has no generated stub: requests and replies are written and
read by :mod:`splitinfer.wire.envelope`, which protobuf's own classes cannot do without copying every tensor.
"""

from __future__ import annotations

import sys
from pathlib import Path

from splitinfer.errors import MissingExtraError, SplitInferError

PROTO = Path(__file__).with_name("splitinfer.proto")
GENERATED = ("splitinfer_pb2.py", "splitinfer_pb2.pyi")


def generate(target: Path) -> list[Path]:
    """Write the generated files to a folder and return their paths.

    Raises:
        MissingExtraError: grpcio-tools is not installed.
        SplitInferError: protoc refuses the file.
    """
    try:
        from grpc_tools import protoc  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("grpcio-tools", "dev") from error
    # The folders above make the file's name in the descriptor pool splitinfer/wire/splitinfer.proto, which no other
    # package claims.
    root = PROTO.parents[2]
    name = PROTO.relative_to(root).as_posix()
    arguments = ["protoc", f"-I{root}", f"--python_out={target}", f"--pyi_out={target}", name]
    if protoc.main(arguments) != 0:
        raise SplitInferError(f"protoc refuses {PROTO}")
    return [target / "splitinfer" / "wire" / file for file in GENERATED]


def main() -> int:
    """Regenerate the files in place."""
    for path in generate(PROTO.parents[2]):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
