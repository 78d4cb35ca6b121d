"""Every example of the README, the site and the docstrings runs, and the site leaves no public name out."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import lowrank_unitary as lu
import lowrank_unitary.torch as lut

pytestmark = pytest.mark.gate

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FENCED = re.compile(r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path, language):
    """The fenced blocks of a page, moved down by blank lines so that errors name the line of the page."""
    text = path.read_text(encoding="utf-8")
    for match in FENCED.finditer(text):
        if match["language"].strip() == language:
            line = text.count("\n", 0, match.start("code"))
            yield pytest.param(
                path,
                line,
                match["code"],
                id=f"{path.relative_to(ROOT).as_posix()}:{line + 1}",
                marks=[pytest.mark.gpu] if "import cupy" in match["code"] else [],
            )


@pytest.mark.parametrize(
    ("path", "line", "code"), [block for path in PAGES for block in blocks(path, "python")]
)
def test_python_example_of_a_page_runs(path, line, code):
    if "import tensorflow" in code:
        pytest.importorskip("tensorflow", reason="needs the extra tensorflow")
    exec(compile("\n" * line + code, str(path), "exec"), {"__name__": "example"})


QUICK_START = ROOT / "docs" / "quickstart.md"


def test_quick_start_shows_the_same_example_in_three_libraries():
    code = [block.values[2] for block in blocks(QUICK_START, "python")]
    assert [next(name for name in ("torch", "jax", "numpy") if f"import {name}" in c) for c in code] == [
        "numpy",
        "torch",
        "jax",
    ]


def test_readme_shows_the_first_example_of_the_quick_start():
    readme, quick_start = (next(blocks(path, "python")) for path in (ROOT / "README.md", QUICK_START))
    assert readme.values[2] == quick_start.values[2]


def test_readme_example_reaches_an_orthogonal_matrix_near_the_target():
    names = {}
    exec(next(blocks(ROOT / "README.md", "python")).values[2], names)
    U, X, Y, np = (names[name] for name in ("U", "X", "Y", "np"))
    assert np.linalg.norm(U @ X - Y) < 1e-3 * np.linalg.norm(X - Y)
    assert bool(lu.is_unitary(U, atol=1e-12))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_interactive_examples_of_a_page_run(path):
    # One namespace for a page, as in the doctest builder of Sphinx.
    source = "\n".join(block.values[2] for block in blocks(path, "{doctest}"))
    run_examples(doctest.DocTestParser().get_doctest(source, {}, path.name, str(path), 0))


def modules():
    yield lu.__name__
    for module in pkgutil.walk_packages(lu.__path__, lu.__name__ + "."):
        # __main__ runs the console script; numba is optional.
        if module.name.rsplit(".", 1)[-1] not in ("__main__", "_numba"):
            yield module.name


@pytest.mark.parametrize("name", list(modules()))
def test_examples_of_docstrings_run(name):
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder().find(module):
        run_examples(test)


def run_examples(test):
    report = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


ONLY_HOLD_ARRAYS = (
    "BodyFactors",
    "LowRankRotation",
    "RotateCotangents",
    "RotationCertificate",
    "SketchError",
    "Spectrum",
    "StepCotangents",
)


@pytest.mark.parametrize("name", [n for n in lu.__all__ if n not in ONLY_HOLD_ARRAYS])
def test_every_public_name_with_something_to_do_has_an_example(name):
    found = doctest.DocTestFinder().find(getattr(lu, name), name, module=False)
    assert any(test.examples for test in found)


@pytest.mark.parametrize("name", lut.__all__)
def test_every_public_name_of_the_torch_adapter_has_an_example(name):
    found = doctest.DocTestFinder().find(getattr(lut, name), name, module=False)
    assert any(test.examples for test in found)


@pytest.mark.parametrize("name", [*lu.__all__, *lut.__all__])
def test_every_public_name_has_an_entry_in_the_reference(name):
    pages = (path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    assert any(re.search(rf"^\.\. auto(function|class):: {name}$", page, re.MULTILINE) for page in pages)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_files_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"(?<!!)\[[^\]\n]*\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target
