"""Run the GPU tests and the benchmarks of a CUDA device, and write everything to one file.

Needs what the GPU tests need; neither asv nor git. The file is rewritten after every number.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
UNFINISHED = "the process ended here"
LOST = 3  # exit status of a process whose device answers no more


def outcome(call, *arguments):
    """What a call returns, or why it returns nothing, as text."""
    try:
        return {"value": call(*arguments)}
    except Exception as error:
        kind = "skipped" if type(error).__name__ == "SkipNotImplemented" else "error"
        return {kind: str(error) if kind == "skipped" else f"{type(error).__name__}: {error}"}


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def card(torch=None, cupy=None):
    return torch.get_device_name(0) if torch else cupy.runtime.getDeviceProperties(0)["name"].decode()


def facts(spaces):
    """Card, driver and versions, as far as each can be asked."""
    cuda = {space.library: space.xp.cuda for space in spaces}
    asked = {
        "card": lambda: card(**cuda),
        "driver": lambda: output("nvidia-smi", "--query-gpu=driver_version", "--format=csv").split()[1],
        "CUDA (driver)": lambda: cuda["cupy"].runtime.driverGetVersion(),
        "CUDA (cupy)": lambda: cuda["cupy"].runtime.runtimeGetVersion(),
        "CUDA (torch)": lambda: importlib.import_module("torch").version.cuda,
        **{x: lambda x=x: importlib.import_module(x).__version__ for x in ("cupy", "torch", "numpy")},
        "commit": lambda: output("git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"),
    }
    return {name: outcome(ask).get("value", "unknown") for name, ask in asked.items()}


def run_tests(seconds):
    """Outcomes of the GPU tests."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "gpu",
            "--thorough",
            "-q",
            "-n0",
            f"--junitxml={report}",
        ]
        subprocess.run(command, cwd=ROOT, timeout=seconds, check=False)
        return read_tests(report)


def read_tests(report):
    counts, failures = dict.fromkeys(("passed", "failed", "skipped"), 0), []
    for case in ElementTree.parse(report).iter("testcase"):
        bad = case.find("failure") is not None or case.find("error") is not None
        kind = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        counts[kind] += 1
        if bad:
            failures.append("::".join(filter(None, (case.get("classname"), case.get("name")))))
    return {**counts, "failures": failures}


def cases(classes):
    """Every class with each of its parameters; the first class in float32 at k = 1 first."""
    every = [
        (cls, dict(zip(cls.param_names, values, strict=True)))
        for cls in classes
        for values in itertools.product(*cls.params)
    ]
    first = {"dtype": "float32", "k": 1}.items()
    return sorted(every, key=lambda case: not (case[0] is classes[0] and case[1].items() >= first))


def identity(row):
    return row["class"], row["number"], tuple(row["params"].items())


def measure(module, results, save, stop=math.inf):
    """Measure what is not there yet; False where the device answers no more, as after a fault."""
    done = set(map(identity, results["numbers"]))
    for cls, params in cases(module.BY_IMPORTANCE):
        numbers = {name: number.unit for name, number in vars(cls).items() if name.startswith("track_")}
        row = {"class": cls.__name__, "params": params}
        rows = [row | {"number": name, "unit": unit} for name, unit in numbers.items()]
        if identity(rows[0]) in done:
            continue
        if time.monotonic() > stop:
            return True
        results["titles"][cls.__name__] = cls.__doc__.splitlines()[0]
        results["numbers"] += [row | {"error": UNFINISHED} for row in rows]
        save()
        benchmark, values = cls(), tuple(params.values())
        ready = outcome(benchmark.setup, *values)
        for place, row in enumerate(rows, len(results["numbers"]) - len(rows)):
            ran = outcome(getattr(benchmark, row["number"]), *values) if "value" in ready else ready
            results["numbers"][place] = row | ran
            print(cls.__name__, *params.values(), row["number"], *ran.values(), flush=True)
            save()
        with contextlib.suppress(Exception):
            benchmark.teardown(*values)
        if any("error" in row for row in results["numbers"][-len(rows) :]) and not module.answers():
            return False
    return True


def save_to(path, results):
    """Replace the file at once, so that it is whole whenever the process ends."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(beside, path)


def spaces_found():
    problems = importlib.import_module("benchmarks.problems")
    found = [outcome(problems.namespace, name) for name in ("cupy:cuda", "torch:cuda")]
    return [x["value"] for x in found if "value" in x], [str(*x.values()) for x in found]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, help="the file to be written, or read")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new after so many")
    parser.add_argument("--table", action="store_true", help="print the tables of the file, measure nothing")
    parser.add_argument("--go-on", action="store_true", help="measure what the file lacks, without the tests")
    options = parser.parse_args(arguments)
    sys.path[:0] = [str(HERE), str(ROOT)]
    path, stop = options.results, time.monotonic() + 60 * options.minutes
    if options.table:
        tables = importlib.import_module("device_tables").tables
        print(*tables(json.loads(path.read_text(encoding="utf-8"))), sep="\n\n")
        return 0
    os.environ["LOWRANK_UNITARY_PROFILE"] = "full"
    if options.go_on:
        results = json.loads(path.read_text(encoding="utf-8"))
        module = importlib.import_module("benchmarks.device")
        return 0 if measure(module, results, lambda: save_to(path, results), stop) else LOST
    spaces, reasons = spaces_found()
    if not spaces:
        print(f"no CUDA device: {'; '.join(reasons)}; nothing was measured", file=sys.stderr)
        return 1
    results = {"facts": facts(spaces), "tests": {"error": UNFINISHED}, "titles": {}, "numbers": []}
    print(json.dumps(results["facts"], indent=1), flush=True)
    save_to(path, results)
    results["tests"] = outcome(run_tests, None if math.isinf(stop) else stop - time.monotonic())
    save_to(path, results)
    return go_on_until_done(path, stop)


def go_on_until_done(path, stop):
    """Measure in processes of their own: a fault in a kernel spoils nothing but the one that it occurs in."""
    while True:
        before = path.read_text(encoding="utf-8")
        minutes = f"--minutes={(stop - time.monotonic()) / 60}"
        command = [sys.executable, __file__, str(path), "--go-on", minutes]
        if (status := subprocess.run(command, check=False).returncode) == 0:
            return 0
        if path.read_text(encoding="utf-8") == before:
            print(f"measuring ended with status {status}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
