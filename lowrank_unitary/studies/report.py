"""The figures of studies, and one self-contained page of them all."""

from __future__ import annotations

import base64
import contextlib
import functools
import html
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_info

from .. import __version__
from .runner import Results
from .study import Row, Study

_DPI = 150
# How many cases under way are named, at most.
_NAMED = 6

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { line-height: 1.2; } h2 { margin-top: 3rem; border-top: 1px solid #8886; padding-top: 1.5rem; }
p, ul { max-width: 46rem; } .facts, figcaption { color: #777; font-size: .9rem; }
figure { margin: 1.5rem 0; } figure img { width: 100%; height: auto; background: white; border-radius: 4px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #8884; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; } code { font-size: .9em; }
@media print { h2 { break-before: page; } body { max-width: none; } }
"""


@dataclass(frozen=True)
class Page:
    """What stands above the sections of a page."""

    title: str
    lead: str


ACCURACY = Page(
    f"Studies of lowrank_unitary {__version__}",
    "How exact low-rank steps of a unitary matrix are, how unitary it stays, and what a sketch keeps. The "
    "published form of the projUNN updates, written from its mathematics, is shown next to the library.",
)
PAPER = Page(
    "The experiments of the projUNN paper",
    "The experiments of Kiani, Balestriero, LeCun and Lloyd, projUNN: efficient method for training deep "
    f"networks with unitary matrices (2022), run with lowrank_unitary {__version__}. Each section says what "
    "was measured, and how to read it.",
)


def write_figure(study: Study, rows: list[Row], output: Path) -> Path:
    """Write the figure of a study as PNG, with lines of seed, versions and machine; return its path."""
    figure = study.figure(rows)
    _sign(figure, caption(rows))
    path = output / f"{study.name}.png"
    # Renamed when complete: the page never shows half a picture.
    temporary = path.with_suffix(f".png.{os.getpid()}.part")
    figure.savefig(temporary, dpi=_DPI, format="png")
    os.replace(temporary, path)
    return path


def caption(rows: list[Row]) -> str:
    """Seed and versions that rows were measured with, and the machine, on a line each."""
    seeds = ", ".join(sorted({str(row["seed"]) for row in rows}))
    return (
        f"seed {seeds}; lowrank-unitary {__version__}, Python {platform.python_version()}, numpy "
        f"{np.__version__}, matplotlib {matplotlib.__version__}\n{machine()}, one thread a case"
    )


@functools.cache
def machine() -> str:
    """The model of the CPU, and how many there are."""
    count = os.cpu_count() or 1
    return f"{_cpu_model()}, {count} CPU{'s' * (count > 1)}"


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, model = line.partition(":")
            if name.strip() == "model name" and model.strip():
                return model.strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if platform.system() == "Darwin":
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine() or "unknown CPU"


def unfinished(results: Results) -> str:
    """A sentence on the cases under way, empty where there are none."""
    cases = results.unfinished()
    if not cases:
        return ""
    named = [
        f"{', '.join(f'{name} = {cell}' for name, cell in case.items())} (rows so far: {len(rows)})"
        for case, rows in cases[:_NAMED]
    ]
    named += [f"and {len(cases) - _NAMED} more"] if len(cases) > _NAMED else []
    count = "1 case is" if len(cases) == 1 else f"{len(cases)} cases are"
    return f"{count} unfinished, shown as far as measured: {'; '.join(named)}."


def write_report(studies: Sequence[Study], output: Path, page: Page = ACCURACY) -> Path:
    """Write ``report.html`` with a section for each study measured in the folder; return its path."""
    found = [(study, Results(study, output, None)) for study in studies]
    shown = [(study, results, rows) for study, results in found if (rows := results.rows_so_far())]
    sections = "\n".join(_section(study, results, rows, output) for study, results, rows in shown)
    contents = "\n".join(
        f'<li><a href="#{study.name}">{html.escape(study.title)}</a></li>' for study, *_ in shown
    )
    facts = (
        f"{machine()}, one thread a case; {platform.platform()}, BLAS {_blas()}; {datetime.now(UTC):%Y-%m-%d}"
    )
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(page.title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(page.title)}</h1>
<p>{html.escape(page.lead)}</p>
<p class="facts">{html.escape(facts)}</p>
<ul>
{contents}
</ul>
{sections}
</body></html>
"""
    path = output / "report.html"
    temporary = path.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _section(study: Study, results: Results, rows: list[Row], output: Path) -> str:
    paragraphs = "\n".join(f"<p>{html.escape(part)}</p>" for part in study.text.split("\n\n"))
    picture = output / f"{study.name}.png"
    if not picture.exists() or picture.stat().st_mtime_ns < results.changed():
        write_figure(study, rows, output)
    data = base64.b64encode(picture.read_bytes()).decode()
    header, lines = study.table(rows)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    name = html.escape(study.name)
    kept = len(results.rows())
    file = f', {kept} rows in <a href="{name}.csv">{name}.csv</a>' if kept else ""
    under_way = f"<p>{html.escape(sentence)}</p>" if (sentence := unfinished(results)) else ""
    return f"""<section id="{name}">
<h2>{html.escape(study.title)}</h2>
{paragraphs}
{under_way}
<figure><img alt="{html.escape(study.title)}" src="data:image/png;base64,{data}">
<figcaption>{results.extent()}{file};
{html.escape(caption(rows))}.
</figcaption></figure>
<div class="scroll"><table><thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table></div>
</section>"""


def _sign(figure: Figure, line: str) -> None:
    if figure.get_supxlabel():
        line = f"{figure.get_supxlabel()}\n{line}"
    figure.supxlabel(line, fontsize=8, color="0.35")


def _blas() -> str:
    pools = {f"{pool['internal_api']} {pool['version'] or '?'}" for pool in threadpool_info()}
    return ", ".join(sorted(pools)) or "unknown"
