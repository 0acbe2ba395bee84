"""The panel of energies over LyaPPO's: names and numbers at the lines' ends."""

from __future__ import annotations

from pathlib import Path

from splitinfer.experiments.plot import plot_figure
from splitinfer.experiments.sweep import load_sweep
from tests.experiments.made_up import row


def drawn(path: Path, energies: dict[str, float]) -> str:
    sweep = load_sweep("fig5")
    rows = [
        row(policy, value, seed=seed, energy_j=1e-3 * energy * (1 + place))
        for policy, energy in energies.items()
        for place, value in enumerate(sweep.values)
        for seed in (0, 1)
    ]
    plot_figure(sweep, rows, [], path, world="made up", warning=" (quick: not for conclusions)")
    return path.read_text()


def test_policies_that_coincide_elsewhere_part_here(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "fig5.svg", {"lyappo": 1.0, "ppo": 1.4, "fixed": 1.01, "random": 9.0})
    assert "total energy over LyaPPO's" in picture
    assert "<!-- Random-Cov ×9 -->" in picture, "too far away to be drawn, so said"
    assert picture.count("<!-- PPO -->") == 2, "in the legend and at its line"
    assert "(quick: not for conclusions)" in picture


def test_without_lyappo_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "fig5.svg", {"fixed": 1.0, "random": 2.0})
    assert "energy over LyaPPO's -->" not in picture.replace("(e) total energy over LyaPPO's -->", "")
