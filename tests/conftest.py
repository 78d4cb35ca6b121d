"""Options and settings of all tests."""

import os

import profiles


def pytest_addoption(parser):
    parser.addoption(
        "--thorough",
        action="store_true",
        help="run every case with many draws; without it each property is shown by few",
    )


def pytest_configure(config):
    profiles.choose(config)
    if config.getoption("dist") == "no" or "PYTEST_XDIST_WORKER" in os.environ:
        config.pluginmanager.import_plugin("worker")


def pytest_report_header(config):
    if not config.getoption("thorough"):
        return "profile: quick; pytest --thorough runs every case, with three times the draws"
    return "profile: thorough"


def pytest_collection_modifyitems(config, items):
    profiles.deselect(config, items)
