"""One figure of a profile: compute share, crossing bits and latency over the cut point."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splitinfer.errors import InputError
from splitinfer.files import replacing
from splitinfer.profiling.profile import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".pdf", ".svg")
_NAMES_SHOWN = 28


def check_plot_path(path: Path) -> None:
    """Find out whether a figure can be written there.

    Raises:
        InputError: unknown kind of file, or no such folder.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"--plot: {path} must end in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"--plot: there is no folder {path.parent}")


def plot_profile(profile: Profile, path: Path) -> None:
    """Draw c^k, d^k (logarithmic, against 1) and, where measured, head and tail latency over k.

    Raises:
        InputError: the file cannot be written.
    """
    check_plot_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cuts = np.arange(profile.num_cuts + 1)
    measured = profile.latency_host is not None
    figure = Figure(figsize=(9, 8.4 if measured else 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3 if measured else 2, 1, sharex=True)
    figure.suptitle(
        f"{profile.model}: {profile.total_macs / 1e9:.3f} GMACs, input {profile.input_bits / 8192:,.0f} KiB, "
        f"K = {profile.num_cuts}"
    )

    compute = panels[0]
    compute.step(cuts, profile.compute_ratio, where="mid", color="tab:blue")
    compute.plot(cuts, profile.compute_ratio, ".", color="tab:blue")
    compute.set_ylabel("c$^k$: share of MACs\nbefore the cut")
    compute.set_ylim(-0.03, 1.03)

    feature = panels[1]
    sent = profile.feature_ratio[:-1]  # nothing crosses at K, and a logarithm has no zero
    feature.bar(cuts[:-1], sent, bottom=0, color=np.where(sent < 1, "tab:green", "tab:orange"), width=0.8)
    feature.axhline(1, color="black", linewidth=0.8)
    feature.set_yscale("log")
    feature.set_ylim(sent.min() / 2, sent.max() * 2)
    feature.set_ylabel("d$^k$: crossing bits\nover input bits")
    feature.text(
        0.99, 0.95, "green: fewer bits than the input", transform=feature.transAxes, ha="right", va="top", fontsize=8
    )

    if measured:
        head = np.array([cut.head_latency.median_s if cut.head_latency else np.nan for cut in profile.cuts]) * 1e3
        tail = np.array([cut.tail_latency.median_s if cut.tail_latency else np.nan for cut in profile.cuts]) * 1e3
        latency = panels[2]
        latency.bar(cuts, head, color="tab:blue", label="head", width=0.8)
        latency.bar(cuts, tail, bottom=head, color="tab:gray", label="tail", width=0.8)
        latency.set_ylabel("latency (ms)")
        latency.set_ylim(0, 1.2 * np.nanmax(head + tail))  # room for the legend above the bars
        latency.legend(loc="upper right", ncols=2, fontsize=8)

    _name_cuts(panels[-1], profile)
    for panel in panels:
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
        panel.margins(x=0.01)
    save_figure(figure, path, dpi=130)


def save_figure(figure: Figure, path: Path, *, dpi: float) -> None:
    """Draw a figure and write it, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    drawn = BytesIO()  # matplotlib leaves a file open that it cannot write
    figure.savefig(drawn, dpi=dpi, format=path.suffix.lower().removeprefix("."))
    try:
        with replacing(path) as part:
            part.write_bytes(drawn.getbuffer())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _name_cuts(axis: Axes, profile: Profile) -> None:
    """Label the cuts with k and the layer's name, every n-th of many."""
    every = -(-len(profile.cuts) // _NAMES_SHOWN)
    shown = profile.cuts[::every]
    axis.set_xticks(
        [cut.index for cut in shown],
        [f"{cut.index} {cut.name}" for cut in shown],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        fontsize=7,
    )
    axis.set_xlabel("cut point k, after layer")
