"""The README's picture of the live page: a real run, watched in a real browser.

    python docs/live_picture.py docs/live_page.png

Needs the extras ``web`` and ``dev`` (Playwright) and the distribution's Chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

RUN = ("--scenario", "busy", "--devices", "1", "--policy", "myopic", "--p95-target-s", "0.5", "--seed", "3")
SIZE = {"width": 1280, "height": 480}
COLOURS = 64


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python docs/live_picture.py", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=50.0, help="of the run when the picture is taken")
    options = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "splitinfer", "run", *RUN, "--duration", str(options.seconds + 60)]
    run = subprocess.Popen([*command, "--web-port", "0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert run.stderr is not None
        address = next(found[0] for line in run.stderr if (found := re.search(r"http://[\w.:]+/", line)))
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
            page.goto(address, wait_until="commit")
            shown = f"() => parseFloat((/, ([0-9.]+) of/.exec(document.body.innerText) || [])[1]) > {options.seconds}"
            page.wait_for_function(shown, timeout=300_000)
            picture = Image.open(io.BytesIO(page.screenshot()))
            browser.close()
    finally:
        run.terminate()
        run.wait(30)
    picture.convert("RGB").quantize(COLOURS).save(options.file, optimize=True)
    print(f"{options.file}: {options.file.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
