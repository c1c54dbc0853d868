"""docs/fleet.md's commands for clusters: those by hand and those for Slurm run, on this machine alone.

Slurm is a ``sbatch`` that starts the job at once: what dask-jobqueue writes is what runs. There is no Kubernetes
here: its manifest is read, and the words in it that are Dask's are tried.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import fleet, kernels
from support.pages import python, texts
from support.tools import free_port

SHELL = re.findall(r"^```sh\n(.*?)^```", texts()["fleet"], re.DOTALL | re.MULTILINE)
(MANIFEST,) = re.findall(r"^```yaml\n(.*?)^```", texts()["fleet"], re.DOTALL | re.MULTILINE)
BUNDLES = 40


@pytest.fixture
def project(tmp_path):
    """A directory with a project of :data:`BUNDLES` rows, and one for programs, which is on the PATH."""
    fleet.make_project(tmp_path, BUNDLES)
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "rumpbundle").write_text(f'#!/bin/sh\nexec {sys.executable} -m rumpbundle "$@"\n')
    (bin / "dask").write_text(f'#!/bin/sh\nexec {sys.executable} -m dask "$@"\n')
    for path in bin.iterdir():
        path.chmod(0o755)
    return tmp_path


def environment(project: Path) -> dict[str, str]:
    paths = f"{project / 'bin'}:{os.environ['PATH']}"
    # What is for a network in the page stays on loopback here.
    host = {"DASK_JOBQUEUE__SLURM__SCHEDULER_OPTIONS__HOST": "127.0.0.1"}
    return os.environ | host | {"PATH": paths, "PYTHONPATH": f"{kernels.ROOT}", "HOME": str(project)}


def test_by_hand(project):
    *servers, run = [line.partition(" #")[0].strip() for line in SHELL[1].splitlines()]
    assert len(servers) == 2
    for shown, ours in (("10.0.0.1", "127.0.0.1"), ("8786", str(free_port())), ("--nworkers 16", "--nworkers 2")):
        assert any(shown in line for line in servers)
        servers, run = [line.replace(shown, ours) for line in servers], run.replace(shown, ours)
    servers[0] += " --no-dashboard"
    servers[1] += " --host 127.0.0.1"
    started = []
    try:
        for line in servers:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(
                subprocess.Popen(
                    f"exec {line}", shell=True, cwd=project, env=environment(project), start_new_session=True, **quiet
                )
            )
        done = subprocess.run(
            run, shell=True, cwd=project, env=environment(project), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert len(fleet.states(project)) == BUNDLES
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


SBATCH = """#!/bin/sh
cp "$1" {place}/job.sh
setsid sh {place}/job.sh >{place}/job.log 2>&1 &
echo $! >>{place}/jobs
echo "Submitted batch job $!"
"""


def test_slurm(project):
    code = python()["fleet-0"]
    for shown, ours in (("cores=16, processes=16", "cores=2, processes=2"), ("jobs=4", "jobs=1")):
        assert shown in code
        code = code.replace(shown, ours)
    (project / "bin" / "sbatch").write_text(SBATCH.format(place=project))
    (project / "bin" / "scancel").write_text("#!/bin/sh\n")
    for name in ("sbatch", "scancel"):
        (project / "bin" / name).chmod(0o755)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=project,
            env=environment(project),
            capture_output=True,
            text=True,
            timeout=300,
        )
        log = project / "job.log"
        assert done.returncode == 0, f"{done.stderr}{log.read_text() if log.exists() else ''}"
        assert len(fleet.states(project)) == BUNDLES
        job = (project / "job.sh").read_text()
        assert "tcp://127.0.0.1:" in job
        assert re.search(r"^#SBATCH --cpus-per-task=2$", job, re.MULTILINE)
        assert re.search(r"^#SBATCH -t 01:00:00$", job, re.MULTILINE)
    finally:
        if (project / "jobs").exists():
            for pid in map(int, (project / "jobs").read_text().split()):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


def test_the_manifest_for_kubernetes_fits_together():
    """Its schema is the operator's, which is not here: what its parts say of each other, and Dask's own words."""
    whole = yaml.safe_load(MANIFEST)
    assert (whole["apiVersion"], whole["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    pod, scheduler = whole["spec"]["worker"]["spec"], whole["spec"]["scheduler"]
    (worker,), (leader,) = pod["containers"], scheduler["spec"]["containers"]
    assert worker["image"] == leader["image"]
    assert {each["name"] for each in worker["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    ports = {each["name"]: each["containerPort"] for each in leader["ports"]}
    for port in scheduler["service"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    assert scheduler["service"]["selector"]["dask.org/cluster-name"] == whole["metadata"]["name"]
    name = whole["metadata"]["name"]
    assert f"tcp://{name}-scheduler:{ports['tcp-comm']}" in SHELL[2]
    assert f"{name}-default" in SHELL[2]
    for words in (worker["args"], leader["args"]):
        command = [sys.executable, "-m", *words[:2], "--help"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        assert all(word in said for word in words if word.startswith("--"))
