"""What runs tests: fixtures, threads, and what processes do before their first test.

A plugin of its own: the process that only hands tests out to others need not import torch and JAX.
"""

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


def pytest_collection_finish(session):
    # A part of the tests may need no kernel.
    if "PYTEST_XDIST_WORKER" in os.environ and len(session.items) > 2000:
        compiled.compile_share()
    # What is there by now stays, a million objects that would be gone through at every collection.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    profiles.enter(item)


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request):
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param
