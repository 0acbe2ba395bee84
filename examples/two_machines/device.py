"""The device: heads of the model in shared.py on pictures, tails on the edge; finishes alone where the edge is gone."""

from __future__ import annotations

import argparse
from pathlib import Path

from shared import build, preprocess

from splitinfer import EdgeClient


def main() -> None:
    """Infer from every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--cut", default="narrow", help="the name of a layer")
    options = parser.parse_args()
    split = build()
    with EdgeClient(options.server, on_failure="fallback") as edge:
        edge.wait_ready(timeout_s=60)
        for picture in options.pictures:
            result = edge.infer(split, options.cut, preprocess(picture))
            best = int(result.output.argmax())
            print(f"{picture.name}: class {best}, tail at the {result.ran_at}, {result.bytes_up} bytes up")


if __name__ == "__main__":
    main()
