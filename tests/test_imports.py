"""The package's shape: imports run one way, nothing heavy is loaded, every public name is documented."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest

import lowrank_unitary as lu

PACKAGE = Path(lu.__file__).parent
HEAVY = (
    "torch jax optax tensorflow cupy numba sklearn matplotlib rich array_api_strict scipy hypothesis pytest "
    "threadpoolctl"
)

# In the order of the data flow: a room may import those of earlier layers, and of its own layer those named
# before it.
LAYERS = (
    ("_array", "_kernels", "_linalg"),
    ("types",),
    ("sketch", "tangent", "rotation", "unitary", "step", "convolution"),
    ("__init__",),
    ("torch", "jax", "dlpack", "cuda_graph", "on_disk"),
    ("reference", "testing"),
    ("demo", "studies"),
    ("cli",),
    ("__main__",),
)
ORDER = {name: position for position, name in enumerate(name for layer in LAYERS for name in layer)}


def modules(package):
    """Dotted path within the package, as a tuple, and syntax tree of every module."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).with_suffix("").parts, ast.parse(path.read_text(encoding="utf-8"))


def imports(parts, tree, known):
    """The modules of the package that a module imports, wherever in the file and however written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            bases = [(tuple(alias.name.split(".")), []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = (lu.__name__, *parts)[: len(parts) + 1 - node.level] if node.level else ()
            base = (*inside, *(node.module.split(".") if node.module else ()))
            bases = [(base, [alias.name for alias in node.names])]
        else:
            continue
        for base, names in bases:
            if base[0] != lu.__name__:
                continue
            inner = base[1:]
            submodules = [
                (*inner, name) for name in names if {(*inner, name), (*inner, name, "__init__")} & known
            ]
            # What is no module of its own is a name of the one that it is imported from.
            for target in submodules if len(submodules) == len(names) > 0 else [inner, *submodules]:
                yield target if target in known else (*target, "__init__")


def graph(package):
    trees = dict(modules(package))
    return {parts: set(imports(parts, tree, set(trees))) for parts, tree in trees.items()}


def wrong_imports(package):
    found = []
    edges = graph(package)
    for parts, targets in edges.items():
        if parts[0] not in ORDER:
            found.append(f"{parts[0]} is in no layer: add it where it belongs in the data flow")
            continue
        for target in targets:
            if ORDER.get(target[0], -1) > ORDER[parts[0]]:
                found.append(f"{'/'.join(parts)} imports {'/'.join(target)}, a later stage")
    return found


def test_imports_run_one_way():
    assert wrong_imports(PACKAGE) == []


def test_no_module_imports_itself_in_a_circle():
    # Within the rooms too, of which the layers say nothing.
    list(TopologicalSorter(graph(PACKAGE)).static_order())


@pytest.mark.gate
@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("types", "from .step import unitary_step"),
        ("types", "from . import step"),
        ("types", "import lowrank_unitary.step"),
        ("types", "from lowrank_unitary.step import unitary_step"),
        ("types", "from lowrank_unitary import step"),
        ("rotation/core", "def late():\n    from .. import unitary_step"),
        ("_array/precision", "from .._linalg import adjoint"),
        ("novelty", "import math"),
    ],
)
def test_a_wrong_import_is_found_however_it_is_written(tmp_path, module, line):
    for parts in (parts for parts, _ in modules(PACKAGE) if parts[0] in ORDER):
        path = tmp_path.joinpath(*parts).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    tmp_path.joinpath(module).with_suffix(".py").write_text(line)
    assert len(wrong_imports(tmp_path)) == 1


def test_no_room_has_more_than_eight_entries_and_every_room_says_what_goes_in_and_out():
    for folder in (path.parent for path in PACKAGE.rglob("__init__.py")):
        if folder == PACKAGE:
            continue
        entries = [
            path.name
            for path in folder.iterdir()
            if path.name not in ("__init__.py", "__pycache__", "py.typed")
        ]
        assert len(entries) <= 8, f"{folder.name} has {len(entries)} entries: {sorted(entries)}"
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text, folder.name


def test_reference_imports_nothing_that_it_judges():
    tree = ast.parse((PACKAGE / "reference.py").read_text(encoding="utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add("." * node.level + (node.module or "").split(".")[0])
    assert roots == {"__future__", "numpy", "typing"}


def test_importing_the_library_loads_no_framework():
    code = f"import sys, lowrank_unitary; print([m for m in {HEAVY.split()!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names_are_sorted_complete_and_documented():
    assert lu.__all__ == sorted(set(lu.__all__))
    public = {name for name, value in vars(lu).items() if not name.startswith("_") and callable(value)}
    assert public == set(lu.__all__)
    for name in lu.__all__:
        # A NamedTuple without a docstring is given its signature for one.
        text = getattr(lu, name).__doc__ or ""
        assert text.strip(), name
        assert not text.startswith(f"{name}("), name


def test_package_is_marked_as_typed():
    assert files("lowrank_unitary").joinpath("py.typed").is_file()
    # An editable installation lists no files of the package, and no module either.
    listed = {str(path) for path in distribution("lowrank-unitary").files or ()}
    assert ("lowrank_unitary/py.typed" in listed) == ("lowrank_unitary/__init__.py" in listed)
