"""Three profiles: the contracts of the library; all tests with --gate; all of their cases with --thorough.

The mark `gate` is for tests of what surrounds the library (pages, studies, figures, the text of the GPU
kernels) and for those that take seconds; `thorough` is for further cases of a test.
"""

import importlib.metadata
import itertools
import os

import pytest
from hypothesis import settings

# Without optimisation JAX compiles in half the time. Flags of XLA come and go, and one that it does not know
# ends the process.
_QUICK_XLA = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)

_thorough = False
# Whether the test that runs has JAX take one operation after another.
one_by_one = False


def of_profile(*, quick, thorough):
    """A number of draws, steps or rows within a test."""
    return thorough if _thorough else quick


def thorough(*values):
    """Values of a parameter that are run with --thorough only; written like pytest.param."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def covering(*lists, most=None):
    """All combinations, of which the quick profile runs few that hold every value of every list.

    With ``most``, it runs no more than so many of them.
    """
    lists = [list(values) for values in lists]
    # Each list goes round; the later ones move on by so many places with every round, or lists of the same
    # length would always pair the same values.
    places = [
        tuple((i + j * (i // len(values))) % len(values) for j, values in enumerate(lists))
        for i in range(max(map(len, lists)))
    ]
    quick = set(places[:most])
    return [
        (pytest.param if place in quick else thorough)(
            *(values[i] for values, i in zip(lists, place, strict=True))
        )
        for place in itertools.product(*(range(len(values)) for values in lists))
    ]


def choose(config):
    """Set what of a profile is no choice of cases: numbers of draws, and how JAX compiles."""
    global _thorough
    _thorough = config.getoption("thorough")
    draws = {"deadline": None, "max_examples": of_profile(quick=12, thorough=40)}
    settings.register_profile("default", **draws)
    settings.register_profile("ci", **draws, derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "default")
    if not _thorough and importlib.metadata.version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_QUICK_XLA]).strip()


def enter(item):
    """Set what of a profile depends on the test that runs."""
    global one_by_one
    one_by_one = _thorough and item.get_closest_marker("thorough") is None


def deselect(config, items):
    """Leave out the cases of the other profiles, unless one is named on the command line."""
    if any("::" in argument for argument in config.args):
        return
    kept = [item for item in items if _thorough or item.get_closest_marker("thorough") is None]
    tests, kept_tests = ({item.nodeid.partition("[")[0] for item in some} for some in (items, kept))
    if tests - kept_tests:
        raise pytest.UsageError(
            f"tests with cases of the thorough profile only: {sorted(tests - kept_tests)}"
        )
    if not (_thorough or config.getoption("gate")):
        kept = [item for item in kept if item.get_closest_marker("gate") is None]
    if left := [item for item in items if item not in set(kept)]:
        config.hook.pytest_deselected(items=left)
    items[:] = kept
