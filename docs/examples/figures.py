"""How the figures of the examples look: the colours of the studies, and a size that suits a page."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# By M. Okabe and K. Ito, told apart by every kind of colour vision.
BLUE, SKY, GREEN, ORANGE, RED, GREY = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "0.45"
DPI = 110


def blank(panels: int = 1, title: str = "", caption: str = "") -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, and what it was made with below it."""
    figure = Figure(figsize=(4.2 + 3.4 * panels, 4.0), layout="constrained")
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(caption, fontsize=8, color="0.35")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for panel in axes:
        panel.grid(visible=True, color="0.92")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_training(
    path: str, title: str, caption: str, losses: list[float], reached: list[tuple[int, float]]
) -> None:
    """Cross-entropy of the minibatches, and accuracy (as a fraction) where it was taken."""
    figure, (left, right) = blank(2, title, caption)
    left.semilogy(losses, color=SKY, linewidth=0.6)
    left.set(xlabel="training step", ylabel="cross-entropy of the minibatch")
    right.plot(*zip(*((step, 100 * accuracy) for step, accuracy in reached), strict=True), color=BLUE)
    right.set(xlabel="training step", ylabel="% of the test images")
    figure.savefig(path, dpi=DPI)
