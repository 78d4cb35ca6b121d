"""Options, fixtures and settings of all tests."""

import gc
import os

import compiled
import profiles
import pytest
import torch
from backends import BACKENDS
from threadpoolctl import threadpool_limits

# Small matrices on several threads, beside other processes, take many times as long.
threadpool_limits(1)
torch.set_num_threads(1)

DTYPES = ("float32", "float64", "complex64", "complex128")


def pytest_addoption(parser):
    parser.addoption(
        "--thorough",
        action="store_true",
        help="run every case with many draws; without it each property is shown by few",
    )


def pytest_configure(config):
    profiles.choose(config)


def pytest_report_header(config):
    if not config.getoption("thorough"):
        return "profile: quick; pytest --thorough runs every case, with three times the draws"
    return "profile: thorough"


def pytest_collection_modifyitems(config, items):
    profiles.deselect(config, items)


def pytest_runtest_setup(item):
    profiles.enter(item)


def pytest_collection_finish(session):
    # Libraries and tests are millions of objects, which would be gone through at every collection.
    gc.collect()
    gc.freeze()
    # A part of the tests may need no kernel.
    if "PYTEST_XDIST_WORKER" in os.environ and len(session.items) > 2000:
        compiled.compile_share()


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request):
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param
