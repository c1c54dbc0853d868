"""``rumpbundle fleet``: many bundles as one job, equal to single runs, and resumed however it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import fleet as support

from rumpbundle.cli import main
from rumpbundle.project import fleet as fleet_job
from rumpbundle.project import reading, record
from rumpbundle.project.entry import entries


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of 40 rows in the current directory, one of which cannot be."""
    support.make_project(tmp_path, 40)
    rows = (tmp_path / "fleet.csv").read_text().splitlines()
    rows[8] = "n7," + "x" * 9000
    (tmp_path / "fleet.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fleet(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as people do: its workers are processes that import what it imports."""
    argv = [sys.executable, "-m", "rumpbundle", "fleet", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300)


def states() -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path("out").iterdir()}


def test_it_makes_what_single_runs_make_and_nothing_twice(project, capsys):
    ran = fleet("--workers", "2", "--progress", "json")
    assert (ran.returncode, ran.stdout) == (2, "fleet.json\n")
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    assert lines[-1]["total"] == 40
    assert (lines[-1]["done"], lines[-1]["failed"], lines[-1]["made"]) == (39, 1, 39)
    assert "error: node-n7 (fleet.csv, row 8, line 9): GRUB reads at most" in ran.stderr
    listed = json.loads(Path("fleet.json").read_bytes())
    assert [each["key"] for each in listed["bundles"]] == [f"n{number}" for number in range(40) if number != 7]
    assert [(each["row"], each["line"]) for each in listed["failed"]] == [(8, 9)]
    for number in (0, 23, 39):
        support.check_single(project, number)
        artifact = next(each for each in listed["bundles"] if each["key"] == f"n{number}")["artifacts"][0]
        assert artifact["path"] == f"out/node-n{number}.iso"
        assert artifact["size"] == Path(artifact["path"]).stat().st_size
    before, first = states(), Path("fleet.json").read_bytes()
    Path("out/node-n3.iso").unlink()
    ran = fleet("--workers", "1")
    assert ran.returncode == 2
    assert "39 bundles are done; new outputs: 1;" in ran.stderr
    after = states()
    assert {name for name in after if after[name] != before[name]} == {"node-n3.iso"}
    assert Path("fleet.json").read_bytes() == first
    assert sorted(after) == sorted(f"node-n{number}.iso" for number in range(40) if number != 7)


def test_a_scheduler_and_four_workers_make_the_same(tmp_path):
    support.make_project(tmp_path, 120)
    with support.cluster(tmp_path, 4) as address:
        ran = support.run(tmp_path, "--scheduler", address, "-o", "out", "-q")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "out/fleet.json\n", "")
    assert len(support.states(tmp_path)) == 121
    for number in (0, 60, 119):
        support.check_single(tmp_path, number)


def test_it_survives_its_workers_and_goes_on_after_its_own_end(tmp_path):
    count = 200
    support.make_project(tmp_path, count)
    first = support.start(tmp_path, "--workers", "2")
    support.wait_for(tmp_path, 20, first)
    killed = support.workers(first.pid)
    assert len(killed) == 2
    support.kill(*killed)
    support.wait_for(tmp_path, 90, first)
    others = support.workers(first.pid)
    assert not set(others) & set(killed)
    support.kill(first.pid)
    first.communicate()
    support.wait_gone(others)
    standing = support.states(tmp_path)
    assert len({size for _, _, size in standing.values()}) == 1
    ran = support.run(tmp_path, "--workers", "2")
    assert ran.returncode == 0, ran.stderr
    after = support.states(tmp_path)
    assert len(after) == count
    assert {name for name in standing if after[name] != standing[name]} == set()
    assert not list((tmp_path / "out").glob(".*"))
    for number in range(0, count, 40):
        support.check_single(tmp_path, number)


POISON = """
import os, signal
from rumpbundle.project import batches
real = batches._Work.begin
def begin(self):
    if self._entry.label == "node-n7":
        os.kill(os.getpid(), signal.SIGKILL)
    real(self)
batches._Work.begin = begin
"""


def test_a_row_that_kills_its_workers_fails_alone(tmp_path):
    support.make_project(tmp_path, 40)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON)
    ran = subprocess.run(
        [sys.executable, "-m", "rumpbundle", "fleet", "--workers", "2", "--progress", "none"],
        cwd=tmp_path,
        # Dask would give up a worker that is not back at once.
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path / "site"),
            "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1ms",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    died = "error: node-n7 (fleet.csv, row 8, line 9): the workers that made it died, 4 one after the other"
    assert (ran.returncode, ran.stderr.splitlines()) == (4, [died])
    listed = json.loads((tmp_path / "fleet.json").read_bytes())
    assert [each["key"] for each in listed["bundles"]] == [f"n{number}" for number in range(40) if number != 7]
    assert len(support.states(tmp_path)) == 39
    assert not list((tmp_path / "out").glob(".*"))


def test_no_scheduler_no_dask_no_file(project, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["fleet"]) == 3
    assert capsys.readouterr().err == "error: Dask is not installed\nhint: pip install 'rumpbundle[fleet]'\n"
    assert main(["fleet", "other.toml"]) == 2
    assert capsys.readouterr().err == "error: other.toml: no such file\n"


def test_an_address_where_nobody_answers(project):
    ran = subprocess.run(
        [sys.executable, "-m", "rumpbundle", "fleet", "--scheduler", "tcp://127.0.0.1:9"],
        env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 3
    assert ran.stderr.startswith("error: tcp://127.0.0.1:9: no scheduler answers there")
    assert len(ran.stderr.splitlines()) == 1


def test_ctrl_c_ends_all_of_it_with_one_line(tmp_path):
    support.make_project(tmp_path, 300)
    argv = [sys.executable, "-m", "rumpbundle", "fleet", "--workers", "2", "-q"]
    with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        support.wait_for(tmp_path, 32, process)
        workers = support.workers(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")
    support.wait_gone(workers)
    assert not list((tmp_path / "out").glob(".*"))


def test_its_workers_keep_the_memory_they_will_want_again(tmp_path):
    support.make_project(tmp_path, 40)
    with support.start(tmp_path, "--workers", "1") as process:
        support.wait_for(tmp_path, 1, process)
        (worker,) = support.workers(process.pid)
        environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        process.communicate()
    assert b"PYTHONHASHSEED=6640" in environment  # Dask's, as is what it tells malloc
    assert not [each for each in environment if each.startswith(b"MALLOC_TRIM_THRESHOLD_")]


@pytest.mark.parametrize(
    ("left", "threads", "rate", "size"),
    [
        (10_000, 2, None, 16),
        (10_000, 2, 600.0, 128),
        (10_000, 2, 100.0, 25),
        (10_000, 2, 0.1, 4),
        (80, 2, 600.0, 10),
        (3, 2, 600.0, 3),
    ],
    ids=["nothing known", "small", "large", "huge", "near the end", "the last"],
)
def test_a_batch_takes_half_a_second_and_all_workers_end_together(left, threads, rate, size):
    assert fleet_job.batch_size(left, threads, rate) == size


class Idle:
    """Stands for Dask's client: one worker, which is never asked."""

    def nthreads(self):
        return {"a": 1}


def test_the_client_looks_at_no_row_more_than_it_has_to(tmp_path, monkeypatch):
    support.make_project(tmp_path, 200)
    text = (tmp_path / "rumpbundle.toml").read_text().replace('output = "out"', 'output = "out/{id}/../x"')
    (tmp_path / "rumpbundle.toml").write_text(text)
    found = list(entries(project := reading.read(str(tmp_path / "rumpbundle.toml"))))
    kept = record.BuildRecord(str(tmp_path))
    paths = [os.path.abspath(target.output) for entry in found for target in entry.targets()]
    kept.outputs.update((path, record.RecordedOutput(path, "", "", ())) for path in paths)
    typed = []
    real = reading.Project.typed
    monkeypatch.setattr(reading.Project, "typed", lambda *args: (typed.append(args), real(*args))[1])
    run = fleet_job._Run(Idle(), project, kept, list(entries(project)), None, True, print, print)
    batches = list(run._batches())
    assert [output.path for _, batch in batches for item in batch.items for output in item.known] == paths
    assert len(typed) == 1
    sizes = [len(batch.items) for _, batch in batches]
    assert sum(sizes) == 200
    assert sizes[0] == 16  # nobody knows yet how long one takes
    assert max(sizes[-4:]) <= 4  # so that all workers end at about the same time


def test_a_fleet_json_of_somebody_elses_stays(project):
    Path("fleet.json").write_text('{"mine": 1}')
    ran = fleet("--workers", "1", "-q")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "error: fleet.json: is no list of a fleet's outputs, so it is not replaced\nhint: give -o DIR\n"
    )
    assert Path("fleet.json").read_text() == '{"mine": 1}'
    assert not Path("out").exists()


def test_workers_here_and_a_cluster_are_one_too_many(project, capsys):
    assert main(["fleet", "--workers", "1", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "--scheduler and --workers contradict each other" in capsys.readouterr().err


def test_a_scheduler_that_goes_is_one_error(tmp_path):
    support.make_project(tmp_path, 3000)
    with support.cluster(tmp_path, 1) as address:
        process = support.start(tmp_path, "--scheduler", address, "-q")
        support.wait_for(tmp_path, 16, process)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (3, "")
    assert err == "error: the scheduler is gone\nhint: start the same command again: what stands stays\n"


def test_a_scheduler_without_workers_is_waited_for_with_a_word(tmp_path):
    support.make_project(tmp_path, 3)
    with support.cluster(tmp_path, 0) as address:
        process = support.start(tmp_path, "--scheduler", address)
        assert "note: the scheduler has no workers" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")
