"""One command measures on a CUDA device: what it writes, and goes on after; which sizes are measured."""

import importlib
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.gate

FOLDER = Path(__file__).resolve().parent.parent / "asv_benchmarks"
FACTS = {"card": "Some Card", "driver": "1.2", "commit": "abc"}


class SkipNotImplemented(NotImplementedError):
    pass


class Ratio:
    """Time over time."""

    params = [["complex64", "float32"], [1, 4], ["here", "there"]]  # noqa: RUF012
    param_names = ["dtype", "k", "kind"]  # noqa: RUF012
    ended = 0

    def setup(self, dtype, k, kind):
        if k == 4 and kind == "there":
            raise SkipNotImplemented("measured at k = 1")

    def track_ratio(self, dtype, k, kind):
        if dtype == "complex64" and kind == "there":
            raise ValueError("the error is 1.0")
        return 1.25 * k

    def teardown(self, *params):
        Ratio.ended += 1

    track_ratio.unit = "times"


class Pair:
    """Two numbers."""

    params = [[64], ["a"]]  # noqa: RUF012
    param_names = ["n", "call"]  # noqa: RUF012

    def setup(self, n, call):
        pass

    def track_one(self, n, call):
        return 1e-7 * n

    def track_other(self, n, call):
        return 123.4

    def teardown(self, n, call):
        raise RuntimeError("memory")

    track_one.unit = track_other.unit = "µs"


FAKE = SimpleNamespace(BY_IMPORTANCE=[Ratio, Pair], answers=lambda: True)


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def on_device(load):
    return load("on_device")


@pytest.fixture
def full(monkeypatch):
    """The benchmarks of the full profile."""
    monkeypatch.setenv("LOWRANK_UNITARY_PROFILE", "full")
    monkeypatch.syspath_prepend(FOLDER)
    loaded = {name for name in sys.modules if f"{name}.".startswith("benchmarks.")}
    assert not loaded
    yield importlib.import_module("benchmarks.device")
    for name in [name for name in sys.modules if f"{name}.".startswith("benchmarks.")]:
        del sys.modules[name]


def empty():
    return {"facts": FACTS, "tests": {"error": "none ran"}, "titles": {}, "numbers": []}


def measured(on_device, path, module=FAKE, results=None, **options):
    results = results or empty()
    whole = on_device.measure(module, results, lambda: on_device.save_to(path, results), **options)
    return whole, json.loads(path.read_text()) if path.exists() else None


def found(stored):
    return {
        (row["class"], row["number"], *row["params"].values()): {
            key: row[key] for key in ("value", "error", "skipped") if key in row
        }
        for row in stored["numbers"]
    }


def test_every_number_is_written_and_errors_and_skips_with_their_reason(on_device, tmp_path):
    Ratio.ended = 0
    whole, stored = measured(on_device, tmp_path / "results.json")
    rows = found(stored)
    assert whole
    assert len(rows) == 2**3 + 2
    assert rows["Ratio", "track_ratio", "float32", 4, "here"] == {"value": 5.0}
    assert rows["Ratio", "track_ratio", "complex64", 1, "there"] == {"error": "ValueError: the error is 1.0"}
    assert rows["Ratio", "track_ratio", "float32", 4, "there"] == {"skipped": "measured at k = 1"}
    assert rows["Pair", "track_other", 64, "a"] == {"value": 123.4}
    assert {row["unit"] for row in stored["numbers"]} == {"times", "µs"}
    assert Ratio.ended == 2**3


def test_the_first_class_comes_first_at_float32_and_rank_one(on_device, tmp_path):
    _, stored = measured(on_device, tmp_path / "results.json")
    order = [(row["class"], *row["params"].values()) for row in stored["numbers"]]
    assert order[:3] == [
        ("Ratio", "float32", 1, "here"),
        ("Ratio", "float32", 1, "there"),
        ("Ratio", "complex64", 1, "here"),
    ]
    assert order[-1][0] == "Pair"


def test_what_was_measured_before_the_end_of_a_process_stays_and_the_rest_is_added(
    on_device, tmp_path, monkeypatch
):
    path = tmp_path / "results.json"

    def interrupt(self, *params):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pair, "track_other", interrupt)
        interrupt.unit = "µs"
        with pytest.raises(KeyboardInterrupt):
            measured(on_device, path)
    stored = json.loads(path.read_text())
    rows = found(stored)
    assert rows["Pair", "track_one", 64, "a"] == {"value": pytest.approx(6.4e-6)}
    assert rows["Pair", "track_other", 64, "a"] == {"error": on_device.UNFINISHED}
    stored["numbers"] = stored["numbers"][2:]
    _, again = measured(on_device, path, results=stored)
    assert len(found(again)) == len(again["numbers"]) == 2**3 + 2
    # What ended a process is not tried again.
    assert found(again)["Pair", "track_other", 64, "a"] == {"error": on_device.UNFINISHED}


def test_a_device_that_answers_no_more_ends_the_process_and_not_the_measurement(on_device, tmp_path):
    path, lost = tmp_path / "results.json", SimpleNamespace(**{**vars(FAKE), "answers": lambda: False})
    whole, stored = measured(on_device, path, lost)
    assert not whole
    assert found(stored)[("Ratio", "track_ratio", "complex64", 1, "there")]["error"].startswith("ValueError")
    assert ("Pair", "track_one", 64, "a") not in found(stored)
    whole, stored = measured(on_device, path, FAKE, stored)
    assert whole
    assert len(found(stored)) == 2**3 + 2


def test_processes_follow_each_other_as_long_as_they_add_something(on_device, tmp_path, monkeypatch):
    path, commands = tmp_path / "results.json", []
    statuses = iter([on_device.LOST, -11, 0])

    def run(command, **options):
        commands.append(command)
        path.write_text(str(len(commands)))
        return SimpleNamespace(returncode=next(statuses))

    path.write_text("")
    monkeypatch.setattr(on_device.subprocess, "run", run)
    assert on_device.go_on_until_done(path, math.inf) == 0
    assert len(commands) == 3
    assert all(command[3:] == ["--go-on", "--minutes=inf"] for command in commands)
    monkeypatch.setattr(on_device.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    assert on_device.go_on_until_done(path, math.inf) == 1


def test_nothing_new_begins_when_the_time_is_over(on_device, tmp_path):
    path = tmp_path / "results.json"
    whole, stored = measured(on_device, path, stop=0.0)
    assert whole
    assert stored is None


def test_tables_name_the_card_and_show_numbers_and_what_failed(on_device, load, tmp_path):
    _, stored = measured(on_device, tmp_path / "results.json")
    stored["tests"] = {"value": {"passed": 3, "failed": 1, "skipped": 0, "failures": ["test_x::test_y"]}}
    text = "\n\n".join(load("device_tables").tables(stored))
    assert text.startswith("*Some Card; driver 1.2; commit abc*\n\nGPU tests: 3 passed, 1 failed, 0 skipped")
    lines = text.splitlines()
    at = lines.index("| dtype | k | here | there |")
    assert lines[at - 2] == "Time over time. Unit: times."
    assert lines[at + 1 : at + 6] == [
        "| --- | --- | --- | --- |",
        "| complex64 | 1 | 1.25 | failed |",
        "| complex64 | 4 | 5.00 |  |",
        "| float32 | 1 | 1.25 | 1.25 |",
        "| float32 | 4 | 5.00 |  |",
    ]
    assert "| n | a, one | a, other |" in lines
    assert "| 64 | 6.4e-06 | 123 |" in lines
    assert "- test_x::test_y" in lines
    assert any(line.startswith("- Ratio.track_ratio") and line.endswith("the error is 1.0") for line in lines)
    stored["tests"]["value"]["failures"] *= 30
    # Thirty tests and one benchmark, of which twenty are shown.
    assert "\n".join(load("device_tables").tables(stored)).endswith("- test_x::test_y\n- and 11 more")


def test_outcomes_of_tests_are_read_from_the_report_of_pytest(on_device, tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_none(): pytest.skip('no')\n"
        "@pytest.fixture\n"
        "def broken(): raise RuntimeError\n"
        "def test_broken(broken): pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--rootdir=.",
        "-c",
        "/dev/null",
        "-p",
        "no:cacheprovider",
    ]
    report = tmp_path / "report.xml"
    # Options of this run are not known to that one.
    environment = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
    subprocess.run(
        [*command, f"--junitxml={report}", "test_some.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    counts = on_device.read_tests(report)
    assert {**counts, "failures": len(counts["failures"])} == dict(passed=1, failed=2, skipped=1, failures=2)
    assert counts["failures"][0].endswith("::test_bad")


def test_without_a_device_nothing_is_written(on_device, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOWRANK_UNITARY_PROFILE", "full")
    monkeypatch.setattr(on_device, "spaces_found", lambda: ([], ["torch finds no CUDA device"]))
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert on_device.main([str(tmp_path / "results.json")]) == 1
    assert "no CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_all_sizes_that_were_asked_for_are_in_the_full_profile(full):
    wanted = {
        full.ToCopy: {
            "namespace": ["cupy:cuda", "torch:cuda"], "dtype": ["float32", "complex64"],
            "n": [4096, 8192, 16384], "k": [1, 4, 16],
            "kind": ["transport", "polar", "transport, healed", "known product"],
        },
        full.Replayed: {"n": [512, 1024], "k": [1, 4], "kind": ["transport, healed", "gradient step"]},
        full.Stacks: {"n": [64, 128]},
        full.ToDense: {
            "n": [128, 256, 512, 1024, 2048, 4096, 8192],
            "method": ["SVD polar", "matrix exponential", "Newton–Schulz"],
        },
        full.StepError: {"dtype": ["float32", "complex64"], "n": [64, 1024], "k": [1, 16]},
        full.Drift: {"namespace": ["cupy:cuda", "torch:cuda"], "steps": [1_000, 100_000]},
    }  # fmt: skip
    for cls, lists in wanted.items():
        for name, values in lists.items():
            assert set(values) <= set(cls.params[cls.param_names.index(name)]), (cls, name)
    assert full.STACKED == 544


def test_every_class_of_the_device_is_run_and_says_its_unit(full):
    classes = {
        value
        for value in vars(full).values()
        if isinstance(value, type) and any(name.startswith("track_") for name in vars(value))
    }
    assert classes == set(full.BY_IMPORTANCE)
    for cls in classes:
        assert cls.__doc__.splitlines()[0].endswith(".")
        numbers = [value for name, value in vars(cls).items() if name.startswith("track_")]
        assert all(number.unit for number in numbers)


def test_the_largest_matrix_fits_a_card_of_16_gb(full):
    largest = max(
        n * n * (8 if dtype == "complex64" else 4) for dtype, n in itertools.product(full.DTYPES, full.SIZES)
    )
    # The matrix, its copy, and the buffers that keep the device busy; half is left for all else.
    assert 2 * largest + 2 * full.LEAD_BYTES < 8 * 2**30
