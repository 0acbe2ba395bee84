"""The paper's figures from this package's own simulator: sweeps over a world, every policy at every point.

====================  =============================================================================
``sweeps/*.toml``     what is swept, over which world, with which policies, seeds and lengths
``sweep.py``          those files, validated; a sweep's points are scenarios
``jobs.py``           one policy at one point: trained if need be, simulated on every seed, kept
``pool.py``           jobs over processes
``rows.py``           results as a tidy CSV, and training curves as another
``summary.py``        means with bands, reductions, when a curve has settled
``report.py``         tables and sentences, on a terminal and as Markdown
``plot.py``           the panels
``reproduce.py``      all of it, for one figure or several
====================  =============================================================================
"""

from __future__ import annotations

from splitinfer.experiments.sweep import Sweep, figure_names, load_sweep

__all__ = ["Sweep", "figure_names", "load_sweep"]
