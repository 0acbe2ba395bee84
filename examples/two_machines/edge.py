"""The edge: serves the tails of the model in shared.py until Ctrl-C.

Beyond this machine give ``--host 0.0.0.0`` and certificates (``splitinfer certs``), or ``--insecure``.
"""

from __future__ import annotations

import argparse
import signal
import threading

from shared import build

from splitinfer.runtime import EdgeServer, ServerSettings


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=50051)
    parser.add_argument("--insecure", action="store_true", help="listen beyond this machine in plain text")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = ServerSettings(host=options.host, port=options.port, insecure=options.insecure)
    with EdgeServer([build()], settings) as server:
        print(f"serving {', '.join(server.models)} on {server.address}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
