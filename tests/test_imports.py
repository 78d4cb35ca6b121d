"""The package's shape: imports run one way, nothing heavy is loaded, every public name is documented."""

import ast
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import lowrank_unitary as lu

PACKAGE = Path(lu.__file__).parent

# A module may import those of earlier layers, and of its own layer those named before it.
LAYERS = (
    ("_array",),
    ("_kernels",),
    ("_primitives", "_validate"),
    ("factors", "initialisers", "unitary"),
    ("sketch", "tangent", "core"),
    ("rotation", "polar", "transport"),
    ("delayed", "step"),
    ("reference", "testing", "__init__"),
    ("studies",),
    ("cli",),
    ("__main__",),
)
ORDER = {name: position for position, name in enumerate(name for layer in LAYERS for name in layer)}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield parts[0], parts, ast.parse(path.read_text(encoding="utf-8"))


def imported(parts, tree):
    """Top-level names of the package that a module imports, wherever in the file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        inside = len(parts) - node.level  # how deep below the package the import starts
        if inside > 0:
            yield parts[0]
        elif node.module:
            yield node.module.split(".")[0]
        else:
            for alias in node.names:
                yield alias.name if alias.name in ORDER else "__init__"


def test_imports_run_one_way():
    for name, parts, tree in modules():
        assert name in ORDER, f"{name} is in no layer: add it where it belongs in the data flow"
        for target in imported(parts, tree):
            assert ORDER[target] <= ORDER[name], f"{'/'.join(parts)} imports {target}, a later stage"


def test_reference_imports_nothing_that_it_judges():
    tree = ast.parse((PACKAGE / "reference.py").read_text(encoding="utf-8"))
    assert not list(imported(("reference",), tree))
    absolute = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert absolute == {"numpy"}


def test_importing_the_library_loads_no_framework():
    heavy = (
        "torch jax cupy numba sklearn matplotlib rich array_api_strict scipy hypothesis pytest threadpoolctl"
    )
    code = f"import sys, lowrank_unitary; print([m for m in {heavy.split()!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names_are_sorted_complete_and_documented():
    assert lu.__all__ == sorted(lu.__all__)
    public = {name for name, value in vars(lu).items() if not name.startswith("_") and callable(value)}
    assert public == set(lu.__all__)
    for name in lu.__all__:
        assert getattr(lu, name).__doc__.strip(), name


def test_package_is_marked_as_typed():
    assert files("lowrank_unitary").joinpath("py.typed").is_file()
