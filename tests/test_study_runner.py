"""Studies are measured once, continue where they stopped, and depend on their seed alone."""

import csv
import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import time

import fake_study
import pytest

from lowrank_unitary import cli, studies
from lowrank_unitary.studies import report, runner
from lowrank_unitary.studies.runner import Results, case_seed, run_studies

pytestmark = pytest.mark.gate


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("FAKE_STUDY_LOG", str(path))
    return path


def run(output, **options):
    return run_studies([fake_study.STUDY], output, **{"jobs": 1, **options})


def test_every_case_is_measured_once_and_a_full_run_adds_to_it(tmp_path, log):
    assert run(tmp_path).complete
    assert len(log.read_text().split("\n")) == 4 + 1
    assert run(tmp_path).complete
    assert len(log.read_text().split("\n")) == 4 + 1
    assert run(tmp_path, full=True).complete
    assert len(log.read_text().split("\n")) == 8 + 1
    # A default run afterwards keeps what the full one has measured.
    run(tmp_path)
    assert len(Results(fake_study.STUDY, tmp_path, 0).rows()) == 16


def test_rows_depend_on_the_seed_and_on_nothing_else(tmp_path):
    for folder, options in (("a", {}), ("b", {"jobs": 2}), ("c", {"full": True}), ("d", {"seed": 1})):
        assert run(tmp_path / folder, **options).complete
    a, b, c, d = ((tmp_path / folder / "fake.csv").read_bytes() for folder in "abcd")
    assert a == b
    assert set(a.splitlines()) < set(c.splitlines())
    assert not set(a.splitlines()[1:]) & set(d.splitlines()[1:])
    one, other = fake_study.cases(False)[:2]
    assert case_seed(one, 0).entropy != case_seed(other, 0).entropy


def test_the_file_is_tidy_and_reads_back_as_it_was_written(tmp_path):
    run(tmp_path)
    with (tmp_path / "fake.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:3] == ["n", "scale", "kind"]
    assert list(lines[0])[-4:] == ["rows", "seed", "lowrank_unitary", "numpy"]
    rows = Results(fake_study.STUDY, tmp_path, 0).rows()
    assert [(row["n"], row["scale"], row["step"]) for row in rows] == [
        (case["n"], case["scale"], step) for case in fake_study.cases(False) for step in range(2)
    ]
    measured = fake_study.measure(
        fake_study.cases(False)[0], case_seed(fake_study.cases(False)[0], 0), tmp_path / "x"
    )
    assert [row["value"] for row in rows[:2]] == [row["value"] for row in measured]
    assert rows[0]["flag"] is False
    assert rows[1]["flag"] is True
    assert rows[0]["missing"] != rows[0]["missing"]


@pytest.mark.parametrize("change", ["seed", "version"])
def test_another_seed_or_version_is_measured_anew(tmp_path, log, monkeypatch, change):
    run(tmp_path)
    if change == "version":
        monkeypatch.setattr(runner.results, "__version__", "999")
    run(tmp_path, seed=1 if change == "seed" else 0)
    assert len(log.read_text().split("\n")) == 8 + 1
    assert len(Results(fake_study.STUDY, tmp_path, 1 if change == "seed" else 0).rows()) == 8


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failing_case_is_named_and_the_others_are_finished(tmp_path, monkeypatch, jobs):
    monkeypatch.setenv("FAKE_STUDY_FAILS", "1")
    outcome = run(tmp_path, jobs=jobs)
    assert not outcome.complete
    assert {case["n"] for _, case, _ in outcome.failures} == {1}
    assert outcome.failures[0][2] == "ValueError: no number came of it"
    assert {row["n"] for row in Results(fake_study.STUDY, tmp_path, 0).rows()} == {2}
    monkeypatch.delenv("FAKE_STUDY_FAILS")
    assert run(tmp_path, jobs=jobs).complete


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, log, monkeypatch):
    # Longest first: of the two sizes the second is measured before the interrupt in the first.
    monkeypatch.setenv("FAKE_STUDY_INTERRUPTS", "1")
    assert run(tmp_path).interrupted
    assert {row["n"] for row in Results(fake_study.STUDY, tmp_path, 0).rows()} == {2}
    monkeypatch.delenv("FAKE_STUDY_INTERRUPTS")
    log.write_text("")
    assert run(tmp_path).complete
    assert log.read_text() == "1 0.1\n1 1e-300\n"
    run(tmp_path / "at once")
    assert (tmp_path / "fake.csv").read_bytes() == (tmp_path / "at once" / "fake.csv").read_bytes()


def test_state_files_are_kept_until_a_case_is_finished_and_then_removed(tmp_path, monkeypatch):
    seen = []

    def watch(study, case):
        seen.append(list(tmp_path.glob(".fake-state/*/state")))

    run(tmp_path, watch=watch)
    assert seen[-1] == []
    assert not (tmp_path / ".fake-state").exists()
    assert len(seen) == 4


def test_a_worker_that_dies_is_reported_and_does_not_hang(tmp_path):
    broken = dataclasses.replace(fake_study.STUDY, measure=die)
    with pytest.raises(RuntimeError, match="a worker process ended by itself"):
        run_studies([broken], tmp_path, jobs=2)


def die(case, seed, scratch):
    import os

    os._exit(3)


def test_the_report_is_one_page_that_needs_nothing_else(tmp_path):
    run(tmp_path)
    unmeasured = dataclasses.replace(fake_study.STUDY, name="other", title="Not measured")
    page = report.write_report([fake_study.STUDY, unmeasured], tmp_path)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,|#fake\"|fake\.csv\")", text)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert "A title with &lt;angles&gt; &amp; ampersands" in text
    assert "Second &lt;b&gt;paragraph&lt;/b&gt;." in text
    assert "<th>n &lt;&amp;&gt;</th>" in text
    assert "Not measured" not in text
    assert "seed 0; lowrank-unitary" in text
    assert (tmp_path / "fake.png").stat().st_size > 1000


@pytest.fixture
def only_fake(monkeypatch):
    monkeypatch.setattr(cli.studies, "STUDIES", {"fake": "takes no time"})
    monkeypatch.setattr(cli.studies, "load_study", lambda name: fake_study.STUDY)


def test_the_command_measures_writes_and_prints(tmp_path, only_fake, capsys):
    output = tmp_path / "new" / "folder"
    assert cli.main(["study", "all", "--output", str(output), "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "A title with <angles> & ampersands" in printed
    assert "report.html" in printed
    assert {path.name for path in output.iterdir()} == {"fake.csv", "fake.png", "report.html"}


def test_the_command_says_what_failed_and_how_to_go_on(tmp_path, only_fake, monkeypatch, capsys):
    arguments = ["study", "fake", "--output", str(tmp_path), "--jobs", "1"]
    monkeypatch.setenv("FAKE_STUDY_FAILS", "2")
    assert cli.main(arguments) == 1
    assert "fake {'n': 2" in (err := capsys.readouterr().err)
    assert "ValueError: no number came of it" in err
    monkeypatch.setenv("FAKE_STUDY_INTERRUPTS", "2")
    monkeypatch.delenv("FAKE_STUDY_FAILS")
    assert cli.main(arguments) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["best"], "invalid choice: 'best'"),
        (["drift", "--seed", "-1"], "--seed: must be a whole number, 0 or more"),
        (["drift", "--jobs", "0"], "--jobs: must be a whole number, 1 or more"),
        (["drift", "--output", __file__], "--output: must be a folder"),
    ],
)
def test_senseless_study_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["study", "drift"]) == 1
    assert (
        capsys.readouterr().err
        == 'lowrank-unitary study needs matplotlib: pip install "lowrank-unitary[demo]"\n'
    )


def test_every_listed_study_exists_and_its_cases_are_sound():
    for name in studies.STUDIES:
        study = studies.load_study(name)
        assert study.name == name
        for full in (False, True):
            listed = study.cases(full)
            keys = {tuple(sorted(case.items())) for case in listed}
            assert len(keys) == len(listed)
            assert all(study.cost(case) > 0 for case in listed)
            for case in listed:
                assert {name: runner.value(runner.text(cell)) for name, cell in case.items()} == case
        if name in studies.NETWORKS:
            assert runner.total_cost([study], False) < 720, "six minutes on two cores"
    together = [studies.load_study(name) for name in studies.STUDIES if name not in studies.NETWORKS]
    assert runner.total_cost(together, False) < 240, "two minutes on two cores"


def test_two_runs_into_one_folder_lose_nothing(tmp_path):
    one, other = (Results(fake_study.STUDY, tmp_path, 0) for _ in range(2))
    first, second = fake_study.cases(False)[:2]
    for results, case in ((one, first), (other, second)):
        results.add(case, fake_study.measure(case, case_seed(case, 0), tmp_path / "state"))
    rows = Results(fake_study.STUDY, tmp_path, 0).rows()
    assert [(row["n"], row["scale"]) for row in rows[::2]] == [(1, 0.1), (1, 1e-300)]
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path, only_fake, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["study", "fake", "--output", str(tmp_path / "file" / "below")]) == 1
    assert "cannot write to the folder" in capsys.readouterr().err


def test_the_command_reports_a_dead_worker_without_a_traceback(tmp_path, monkeypatch, capsys):
    broken = dataclasses.replace(fake_study.STUDY, measure=die)
    monkeypatch.setattr(cli.studies, "STUDIES", {"fake": "dies"})
    monkeypatch.setattr(cli.studies, "load_study", lambda name: broken)
    assert cli.main(["study", "fake", "--output", str(tmp_path), "--jobs", "2"]) == 1
    assert "a worker process ended by itself" in capsys.readouterr().err
    assert (tmp_path / "report.html").exists()


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_workers_are_deaf_to_interrupts_from_their_first_moment(tmp_path):
    deaf = dataclasses.replace(fake_study.STUDY, measure=tell_signals)
    assert run_studies([deaf], tmp_path, jobs=2).complete
    rows = Results(deaf, tmp_path, 0).rows()
    assert all(row["ignored"] and row["held"] for row in rows)
    # Here they are as before.
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def tell_signals(case, seed, scratch):
    held = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return [{"ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "held": held}]


def test_the_report_shows_all_studies_of_the_folder_whatever_their_seeds(tmp_path):
    other = dataclasses.replace(fake_study.STUDY, name="other", title="Other")
    run_studies([fake_study.STUDY], tmp_path, jobs=1)
    run_studies([other], tmp_path, seed=7, jobs=1)
    text = report.write_report([fake_study.STUDY, other], tmp_path).read_text(encoding="utf-8")
    assert "seed 0; lowrank-unitary" in text
    assert "seed 7; lowrank-unitary" in text


def test_the_report_draws_a_figure_anew_when_there_are_newer_rows(tmp_path):
    run(tmp_path)
    page = report.write_report([fake_study.STUDY], tmp_path).read_text(encoding="utf-8")
    assert "4 cases (default list)" in page
    run(tmp_path, full=True)
    newer = report.write_report([fake_study.STUDY], tmp_path).read_text(encoding="utf-8")
    assert "8 cases (full list)" in newer
    pictures = [re.search(r"base64,([^\"]*)", text).group(1) for text in (page, newer)]
    assert pictures[0] != pictures[1]


def test_the_report_says_what_an_interrupted_run_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_STUDY_INTERRUPTS", "1")
    run(tmp_path)
    page = report.write_report([fake_study.STUDY], tmp_path).read_text(encoding="utf-8")
    assert "2 cases (incomplete: 2 of the default list are missing)" in page


def test_a_failed_case_that_kept_no_state_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_STUDY_FAILS", "1")
    run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fake.csv"]


@pytest.mark.parametrize("cut", ["lines", "half", "bytes"])
def test_a_file_that_was_cut_within_a_case_is_measured_again_from_there(tmp_path, cut):
    run(tmp_path)
    path = tmp_path / "fake.csv"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(
        {"lines": b"".join(lines[:-3]), "half": whole[: len(whole) // 2], "bytes": whole[:-3]}[cut]
    )
    results = Results(fake_study.STUDY, tmp_path, 0)
    assert sum(case in results for case in fake_study.STUDY.cases(False)) < 4
    assert "incomplete" in results.extent()
    run(tmp_path)
    assert path.read_bytes() == whole


def test_a_file_that_is_no_table_is_refused_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli.studies, "STUDIES", {"fake": "is no table"})
    monkeypatch.setattr(cli.studies, "load_study", lambda name: fake_study.STUDY)
    (tmp_path / "fake.csv").write_bytes(bytes(range(256)) * 9)
    assert cli.main(["study", "fake", "--output", str(tmp_path), "--jobs", "1"]) == 1
    assert "fake.csv is no table of results" in capsys.readouterr().err
    assert (tmp_path / "fake.csv").read_bytes() == bytes(range(256)) * 9


def test_a_full_disk_is_reported_without_a_traceback(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli.studies, "STUDIES", {"fake": "has no room"})
    monkeypatch.setattr(cli.studies, "load_study", lambda name: fake_study.STUDY)
    monkeypatch.setattr(runner.results.os, "replace", full)
    assert cli.main(["study", "fake", "--output", str(tmp_path), "--jobs", "1"]) == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Windows has no such signal")
def test_sigterm_ends_the_worker_processes_too(tmp_path):
    command = [sys.executable, "-P", "-m", "lowrank_unitary", "study", "one-step", "--full", "--jobs", "2"]
    with subprocess.Popen([*command, "--output", str(tmp_path)], start_new_session=True) as process:
        while not list(tmp_path.glob(".one-step-state/*")):
            time.sleep(0.05)
            assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("a process of the group is still alive")
