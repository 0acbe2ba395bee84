"""Learned partition policies: the MDP of the upper level, training, and what training leaves behind.

Importing it registers ``splitinfer/Partition-v0`` and ``splitinfer/Joint-v0`` with Gymnasium, where that is installed
(the extra ``splitinfer[learn]``). Only training needs the extra; loading and using a policy does not.
"""

from __future__ import annotations

from importlib.util import find_spec

from splitinfer.learning.registration import register
from splitinfer.learning.run_folder import load_policy
from splitinfer.learning.settings import TrainingSettings

__all__ = ["TrainingSettings", "load_policy"]

if find_spec("gymnasium") is not None:
    register()
