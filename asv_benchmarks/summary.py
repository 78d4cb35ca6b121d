"""Draw the figure and write the table of the documentation from the results of the last asv run.

Usage, in this folder: python summary.py [results.json]
"""

import itertools
import json
import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
STATIC = HERE.parent / "docs" / "_static"
COLOURS = {"float32": "#0072b2", "float64": "#d55e00", "complex64": "#009e73", "complex128": "#cc79a7"}


def newest():
    """The results file with the latest date."""
    files = [path for path in HERE.glob(".asv/results/*/*.json") if path.name != "machine.json"]
    if not files:
        sys.exit("no results: run asv first (README.md)")
    return max(files, key=lambda path: json.loads(path.read_text())["date"])


def read(path):
    """Benchmark name → {parameters: value}, and what is known of the machine."""
    stored = json.loads(path.read_text())
    results = {}
    for name, row in stored["results"].items():
        values, params = row[0], row[1] if len(row) > 1 and row[1] else []
        keys = itertools.product(*([x.strip("'") for x in axis] for axis in params))
        results[name] = {
            key: value
            for key, value in zip(keys, values or [], strict=False)
            if value is not None and not math.isnan(value)
        }
    return results, stored["params"]


def number(value):
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


# How the kinds of steps are called in the table.
KINDS = {
    "transport": "transport",
    "polar": "polar",
    "transport, healed": "healed",
    "known product": "known product",
    "transport, column-major": "column-major",
}


def limit_rows(ratios):
    """One row for every dtype, k and size; one column for every kind of step."""
    several = len({key[0] for key in ratios}) > 1
    yield [*(["namespace"] if several else []), "dtype", "k", "n", *KINDS.values()]
    dtypes = list(COLOURS)
    steps = {key[:4] for key in ratios}
    for step in sorted(steps, key=lambda step: (step[0], dtypes.index(step[1]), int(step[3]), int(step[2]))):
        namespace, dtype, n, k = step
        names = [namespace, dtype, k, n] if several else [dtype, k, n]
        yield [*names, *(number(ratios.get((*step, kind))) for kind in KINDS)]


def markdown(rows):
    first, *rest = rows
    lines = ["| " + " | ".join(first) + " |", "|" + "---|" * len(first)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rest)])


def caption(path, machine, versions):
    cpu = machine.get("cpu", "CPU").split(",")[0] or "CPU"
    return (
        f"{cpu}, {machine.get('num_cpu', '?')} cores, all used by the kernels; {versions}; medians "
        f"within one process; commit {path.stem.split('-')[0]}"
    )


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else newest()
    results, machine = read(path)
    ratios = results.get("ratios.ToLimit.track_ratio_to_limit", {})
    published = results.get("ratios.ToPublished.track_gain_over_published_form", {})
    dense = results.get("ratios.ToDense.track_gain_over_dense", {})
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "scipy"))
    text = [
        f"*{caption(path, machine, versions)}*",
        "Time over the larger limit:",
        markdown(limit_rows(ratios)),
        "Time of the published form over that of this library (float32):",
        markdown(
            [
                ["n", "k", "update", "times as fast"],
                *(
                    [n, k, update, number(x)]
                    for (_, n, k, update), x in sorted(
                        published.items(), key=lambda item: (int(item[0][1]), int(item[0][2]), item[0][3])
                    )
                ),
            ]
        ),
        "Time of a dense way over that of a transport of rank 1 (float32):",
        markdown(
            [
                ["n", "method", "times as fast"],
                *(
                    [n, method, number(x)]
                    for (n, method), x in sorted(dense.items(), key=lambda item: (int(item[0][0]), item[1]))
                ),
            ]
        ),
    ]
    (STATIC / "performance.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    figure(ratios, published, caption(path, machine, versions)).savefig(STATIC / "performance.png", dpi=150)


def version(name):
    from importlib.metadata import version as installed

    return installed(name)


def figure(ratios, published, text):
    canvas, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for dtype, colour in COLOURS.items():
        for kind, line in (("transport", "-"), ("transport, healed", ":")):
            points = sorted(
                (int(key[2]), x)
                for key, x in ratios.items()
                if key[0] == "numpy" and key[1] == dtype and key[3] == "1" and key[4] == kind
            )
            if points:
                label = dtype if line == "-" else None
                left.plot(
                    *zip(*points, strict=True), line, color=colour, marker="o", markersize=4, label=label
                )
    left.axhline(1, color="0.3", linewidth=1)
    left.plot([], [], ":", color="0.3", label="with healing")
    left.set(
        xscale="log",
        xlabel="n",
        ylabel="time of a step / time of 3n² words",
        ylim=(0, None),
        title="One step of rank 1, in place",
    )
    for k, marker in (("1", "o"), ("16", "s")):
        for update, line in (("transport", "-"), ("polar", "--")):
            points = sorted(
                (int(key[1]), x) for key, x in published.items() if key[2] == k and key[3] == update
            )
            if points:
                right.plot(
                    *zip(*points, strict=True),
                    line,
                    marker=marker,
                    markersize=4,
                    color="#0072b2" if k == "1" else "#d55e00",
                    label=f"{update}, k = {k}",
                )
    right.set(
        xscale="log",
        yscale="log",
        xlabel="n",
        ylabel="times as fast",
        title="Beside the published form, float32",
    )
    for axes in (left, right):
        ticks = sorted({int(x) for line in axes.lines for x in line.get_xdata() if x > 1})
        axes.set_xticks(ticks, [str(x) for x in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
    right.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    right.set_ylim(1, 50)
    canvas.supxlabel(text, fontsize=6.5, color="0.4")
    return canvas


if __name__ == "__main__":
    main()
