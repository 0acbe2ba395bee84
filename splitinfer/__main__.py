"""``python -m splitinfer``: the command line."""

from __future__ import annotations

import sys

from splitinfer.cli.main import main

sys.exit(main())
