"""The LyaPPO policy that comes with the package: what the plain name ``lyappo`` means, with no training."""

from __future__ import annotations

from pathlib import Path

SHIPPED_POLICY = Path(__file__).parent
"""A run folder with ``run.json`` (how it was trained) and ``policy.safetensors``; ``load_policy`` reads it."""
