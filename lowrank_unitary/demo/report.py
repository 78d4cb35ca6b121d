"""The results of the digits comparison: a table, a CSV file of all curves, a figure."""

from __future__ import annotations

import csv
import platform
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from .. import __version__
from .digits import BASELINE, METHODS, Run, Settings
from .recurrent import Floats

# Colours by M. Okabe and K. Ito, distinct for every kind of colour vision; the dense methods are dashed and
# the unconstrained network dotted, for prints in grey.
_COLOURS = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#000000")
_LINES = ("-", "-", "-", "--", "--", ":")
_STYLES = {
    method.name: {"color": colour, "linestyle": line, "linewidth": 1.6}
    for method, colour, line in zip(METHODS, _COLOURS, _LINES, strict=True)
}


def table(runs: list[Run]) -> Table:
    """The final numbers of every run that was evaluated; unfinished ones are marked."""
    notes = [
        "Loss: mean of the last 50 minibatches. Defect: ‖WᵀW − I‖_F/√n. Times:",
        "medians; an update is that of W alone, sketch included. Dense polar: the",
        "orthogonal matrix nearest to the tangent step, by SVD. One BLAS thread.",
    ]
    # Narrow enough for a terminal of 80 columns.
    result = Table(
        title="Six ways to move the recurrent matrix W",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        caption_justify="left",
    )
    result.add_column("method", no_wrap=True)
    for heading in ("test\nacc.", "train\nloss", "defect", "update\n(ms)", "step\n(ms)", "speed"):
        result.add_column(heading, justify="right", no_wrap=True)
    baseline = next((run.update_seconds for run in runs if run.method == BASELINE and run.steps), None)
    for run in runs:
        if not run.evaluations:
            continue
        last = run.evaluations[-1]
        speed = 0.0 if baseline is None else baseline / run.update_seconds
        result.add_row(
            run.method if run.finished else f"{run.method}*",
            f"{last.accuracy:.1%}",
            f"{run.final_loss:.4f}",
            f"{last.defect:.1e}",
            f"{1e3 * run.update_seconds:.2f}",
            f"{1e3 * run.step_seconds:.1f}",
            "" if baseline is None else f"{speed:.1f}×" if speed < 10 else f"{speed:.0f}×",
        )
        if not run.finished:
            notes.append(f"* stopped after {len(run.steps)} of {run.planned_steps} steps.")
    if baseline is not None:
        notes.insert(3, f"Speed: of the update, relative to {BASELINE}.")
    result.caption = "\n".join(notes)
    return result


def write_curves(runs: list[Run], path: Path) -> None:
    """Write one line per method and training step, with test results where they were taken."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("method", "step", "loss", "update_seconds", "step_seconds", "test_accuracy", "unitarity_defect")
        )
        for run in runs:
            evaluated = {evaluation.step: evaluation for evaluation in run.evaluations}
            for index, step in enumerate(run.steps, start=1):
                taken = evaluated.get(index)
                test = ("", "") if taken is None else (f"{taken.accuracy:.6g}", f"{taken.defect:.6g}")
                writer.writerow((run.method, index, *(f"{value:.6g}" for value in step), *test))


def figure(runs: list[Run], settings: Settings) -> Figure:
    """Loss, accuracy and unitarity defect against the step, and accuracy against the time of the updates.

    Without pyplot's global state.
    """
    result = Figure(figsize=(13.0, 8.4), layout="constrained")
    (loss, accuracy), (defect, timed) = result.subplots(2, 2)
    window = max(1, settings.steps // 40)
    for run in runs:
        style = _STYLES[run.method]
        smooth = _running_mean(np.array([step.loss for step in run.steps]), window)
        loss.plot(np.arange(len(smooth)) + window, smooth, label=run.method, **style)
        steps = [evaluation.step for evaluation in run.evaluations]
        percent = [100 * evaluation.accuracy for evaluation in run.evaluations]
        accuracy.plot(steps, percent, **style)
        seconds = np.cumsum([step.update_seconds for step in run.steps])
        timed.plot([seconds[step - 1] for step in steps], percent, **style)
        defect.plot(steps, [evaluation.defect for evaluation in run.evaluations], **style)
    loss.set_yscale("log")
    _dress(loss, "Training loss", f"cross-entropy, mean of {window} minibatches")
    _dress(accuracy, "Test accuracy", "% of the test images")
    timed.set_xscale("log")
    _dress(timed, "Test accuracy against time", "% of the test images", "seconds spent in moving W")
    defect.set_yscale("log")
    _dress(defect, "Distance from orthogonality", "‖WᵀW − I‖ / √n (Frobenius)")
    handles, labels = loss.get_legend_handles_labels()
    result.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        frameon=False,
        title="Reading handwritten digits: six ways to move the recurrent matrix",
        title_fontsize=13,
    )
    result.supxlabel(caption(settings), fontsize=8.5, color="0.35")
    return result


def caption(settings: Settings) -> str:
    """The line under the figure: what was run, and with what."""
    return (
        f"n = {settings.hidden}, {settings.steps} steps of {settings.batch_size} images, "
        f"{settings.pixels} of 64 pixels at a time, seed {settings.seed}, float32; "
        f"lowrank-unitary {__version__}, Python {platform.python_version()}, "
        f"numpy {np.__version__}, matplotlib {matplotlib.__version__}"
    )


def _dress(axes: Axes, title: str, ylabel: str, xlabel: str = "training step") -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(visible=True, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _running_mean(values: Floats, window: int) -> Floats:
    if len(values) < window:
        return np.empty(0)
    total = np.cumsum(np.concatenate([np.zeros(1), values]))
    mean: Floats = (total[window:] - total[:-window]) / window
    return mean
