"""Learned partition policies: the MDP of the upper level, training, and what training leaves behind.

Importing this package registers ``splitinfer/Partition-v0`` and ``splitinfer/Joint-v0`` with Gymnasium, where that is
installed (the extra ``splitinfer[learn]``).
"""

from __future__ import annotations

from splitinfer.learning.registration import register

register()
