"""Draw what the site explains by a picture: how the updates move U, and the data flow of a step.

From the root of the repository: python docs/figures/drawings.py
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

STATIC = Path(__file__).resolve().parent.parent / "_static"
# By M. Okabe and K. Ito, told apart by every kind of colour vision.
BLUE, GREEN, ORANGE, RED, GREY = "#0072B2", "#009E73", "#E69F00", "#D55E00", "0.45"


def save(figure: Figure, name: str) -> None:
    # The same file from every run: no date, no random names.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(STATIC / name, metadata={"Date": None})


def arrow(axes: Any, begin: Any, end: Any, colour: str, style: str = "-", curve: float = 0.0) -> None:
    line = {
        "arrowstyle": "-|>,head_length=0.5,head_width=0.22",
        "color": colour,
        "linewidth": 2,
        "linestyle": style,
        "shrinkA": 0,
        "shrinkB": 0,
        "connectionstyle": f"arc3,rad={curve}",
    }
    axes.annotate("", end, begin, arrowprops=line)


def on_circle(degrees: Any) -> Any:
    angle = np.radians(degrees)
    return np.array([np.cos(angle), np.sin(angle)])


def geodesic_and_projection() -> None:
    """The plane stands for all n×n matrices, the circle for the unitary ones."""
    figure = Figure(figsize=(9, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    U, outward, tangent = on_circle(118), on_circle(118), on_circle(28)
    step = 0.95 * tangent + 0.28 * outward
    foot = 0.95 * tangent
    for axes, title in ((left, "transport: along the geodesic"), (right, "polar: straight, and back")):
        axes.set_title(title, fontsize=12)
        axes.plot(*on_circle(np.linspace(20, 150, 200)), color=GREY, linewidth=2)
        axes.annotate("unitary matrices", on_circle(147), (4, -22), textcoords="offset points", color=GREY)
        arrow(axes, U, U + step, ORANGE)
        axes.plot(*U, "o", color="black", markersize=7, zorder=3)
        axes.annotate("U", U, (-14, 4), textcoords="offset points", fontsize=12)
        axes.set_aspect("equal")
        axes.set_xlim(-1.0, 1.25)
        axes.set_ylim(0.4, 1.8)
        axes.set_axis_off()
    # An arc as long as the tangent part.
    reached = 118 - np.degrees(0.95)
    left.annotate("step a bᴴ", U + 0.6 * step, (-6, 9), textcoords="offset points", color=RED, ha="right")
    arrow(left, U, U + foot, GREEN)
    left.plot(*np.array([U + step, U + foot]).T, color=GREY, linestyle=":", linewidth=1.5)
    left.annotate(
        "its tangent part", U + foot, (4, -10), textcoords="offset points", color=GREEN, ha="left", va="top"
    )
    left.plot(*on_circle(np.linspace(118, reached, 100)), color=BLUE, linewidth=4, zorder=2)
    left.plot(*on_circle(reached), "o", color=BLUE, markersize=8, zorder=3)
    left.annotate(
        "U exp(Ω): an arc as long\nas the tangent part",
        on_circle(90),
        (0, -26),
        textcoords="offset points",
        color=BLUE,
        va="top",
        ha="center",
    )
    target = U + step
    nearest = target / np.linalg.norm(target)
    right.annotate("step a bᴴ", U + 0.6 * step, (-6, 9), textcoords="offset points", color=RED, ha="right")
    right.annotate("U + a bᴴ", target, (8, 2), textcoords="offset points", color=RED)
    arrow(right, target, nearest, BLUE, "--")
    right.plot(*nearest, "o", color=BLUE, markersize=8, zorder=3)
    right.annotate(
        "the nearest unitary matrix",
        nearest,
        (-8, -26),
        textcoords="offset points",
        color=BLUE,
        va="top",
        ha="center",
    )
    save(figure, "geodesic_and_projection.svg")


def data_flow() -> None:
    """The objects of a step with their shapes; thin ones are drawn thin."""
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(0.1, 17.6)
    axes.set_ylim(0.1, 5.9)
    axes.set_aspect("equal")
    axes.set_axis_off()
    height, thin, middle = 2.6, 0.36, 3.7

    def block(x: float, width: float, colour: str) -> None:
        shape = FancyBboxPatch(
            (x, middle - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=colour,
            edgecolor="none",
        )
        axes.add_patch(shape)

    def name(x: float, text: str, shape: str) -> None:
        axes.text(x, middle + height / 2 + 0.22, text, ha="center", va="bottom", fontsize=10)
        axes.text(x, middle - height / 2 - 0.2, shape, ha="center", va="top", fontsize=9, color=GREY)

    def joined(begin: float, end: float, function: str, cost: str) -> None:
        arrow(axes, (begin, middle), (end, middle), "black")
        axes.text((begin + end) / 2, middle + 0.25, function, ha="center", va="bottom", fontsize=9)
        axes.text((begin + end) / 2, middle - 0.3, cost, ha="center", va="top", fontsize=9, color=GREY)

    block(0.2, 2.6, ORANGE)
    name(1.5, "gradient G", "n × n")
    joined(3.0, 4.6, "sketch", "O(kn²)")
    for x, text in ((4.9, "a"), (5.5, "b")):
        block(x, thin, ORANGE)
        axes.text(x + thin / 2, middle, text, ha="center", va="center", fontsize=10)
    name(5.38, "factors", "n × k each")
    joined(6.1, 7.6, "c = Uᴴa", "reads U")
    for x, text, colour in ((7.9, "c", GREEN), (8.5, "b", ORANGE)):
        block(x, thin, colour)
        axes.text(x + thin / 2, middle, text, ha="center", va="center", fontsize=10)
    name(8.38, "body factors", "n × k each")
    joined(9.1, 10.7, "core", "O(nk²)")
    for x, text in ((11.0, "L"), (11.9, "R")):
        block(x, 2 * thin, GREEN)
        axes.text(x + thin, middle, text, ha="center", va="center", fontsize=10)
    name(11.81, "rotation I + L Rᴴ", "n × 2k each")
    joined(12.8, 14.6, "U + (U L) Rᴴ", "reads and\nwrites U")
    block(14.9, 2.6, BLUE)
    name(16.2, "new U", "n × n")

    note = {"ha": "center", "va": "center", "fontsize": 9, "color": GREY}
    axes.text(5.38, 0.65, "outer products\nenter here", **note)
    arrow(axes, (5.38, 1.15), (5.38, 1.85), GREY)
    axes.text(8.38, 0.65, "a known Uᴴa\nenters here", **note)
    arrow(axes, (8.38, 1.15), (8.38, 1.85), GREY)
    save(figure, "data_flow.svg")


def main() -> None:
    geodesic_and_projection()
    data_flow()


if __name__ == "__main__":
    main()
