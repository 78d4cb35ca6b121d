"""Options and settings of all tests."""

import os

import profiles


def pytest_addoption(parser):
    parser.addoption(
        "--gate",
        action="store_true",
        help="run also the tests of pages, studies and GPU kernels, and those that take seconds",
    )
    parser.addoption(
        "--thorough",
        action="store_true",
        help="run all tests in every case with many draws; without it each property is shown by few",
    )


def pytest_configure(config):
    profiles.choose(config)
    if config.getoption("dist") == "no" or "PYTEST_XDIST_WORKER" in os.environ:
        config.pluginmanager.import_plugin("worker")


def pytest_report_header(config):
    if config.getoption("thorough"):
        return "profile: thorough"
    if config.getoption("gate"):
        return "profile: gate; pytest --thorough runs every case, with three times the draws"
    return "profile: quick; pytest --gate runs all tests, pytest --thorough every case of them"


def pytest_collection_modifyitems(config, items):
    profiles.deselect(config, items)
