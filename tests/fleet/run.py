"""The heavy proof of fleets: ten thousand bundles, compared with single runs, killed and resumed.

``PYTHONPATH=.:tests nice python tests/fleet/run.py [--bundles 10000] [--directory DIR]`` needs 1.2 MB of disk a
bundle, which it gives back. It tells what it measured, and fails if a bundle differs, is torn or is made twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

from support import fleet

BATCH = 128


def cpu() -> float:
    """Return the seconds of CPU that ended children of this process took, theirs included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(directory: Path, *arguments: str) -> tuple[float, float, str]:
    """Run a fleet that must succeed; return seconds, seconds of CPU, and what it said last."""
    began, before = time.monotonic(), cpu()
    done = fleet.run(directory, *arguments, timeout=7200)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began, cpu() - before, done.stderr.splitlines()[-1]


def whole(directory: Path, count: int, workers: int) -> None:
    """Make a whole fleet, and look at samples of it; then nothing is left to do."""
    seconds, used, said = timed(directory, "--workers", str(workers))
    print(f"{count} bundles: {seconds:.1f} s, {used / count * 1000:.2f} ms of CPU each, client included; {said}")
    for number in sorted(random.sample(range(count), min(20, count))):
        fleet.check_single(directory, number)
    listed = json.loads((directory / "fleet.json").read_bytes())
    assert len(listed["bundles"]) == count
    assert not listed["failed"]
    before, first = fleet.states(directory), (directory / "fleet.json").read_bytes()
    for again in ("once more", "and again"):  # the first time it reads what was young
        seconds, used, said = timed(directory, "--workers", str(workers))
        print(f"{again}: {seconds:.1f} s, {used / count * 1000:.2f} ms of CPU each; {said}")
    assert fleet.states(directory) == before
    assert (directory / "fleet.json").read_bytes() == first


def killed(directory: Path, count: int) -> None:
    """Kill workers, then the client, some times over; then let it end."""
    lost = 0
    for share in (0.2, 0.4, 0.6):
        process = fleet.start(directory, "--workers", "2")
        fleet.wait_for(directory, int(count * share), process, 3600)
        fleet.kill(*fleet.workers(process.pid))
        fleet.wait_for(directory, int(count * (share + 0.1)), process, 3600)
        pids = fleet.workers(process.pid)
        fleet.kill(process.pid)
        process.wait()
        fleet.wait_gone(pids)
        standing = fleet.states(directory)
        assert {size for _, _, size in standing.values()} == {next(iter(standing.values()))[2]}
        resumed = fleet.start(directory, "--workers", "2")
        fleet.wait_for(directory, min(count, len(standing) + 2 * BATCH), resumed, 3600)
        fleet.kill(resumed.pid, *fleet.workers(resumed.pid))
        resumed.wait()
        after = fleet.states(directory)
        lost += sum(after.get(name) != state for name, state in standing.items())
    before = fleet.states(directory)
    timed(directory, "--workers", "2")
    after = fleet.states(directory)
    assert len(after) == count
    lost += sum(after[name] != state for name, state in before.items())
    print(f"killed six times: {count} bundles stand, {lost} of them made twice")
    assert lost == 0
    assert not [name for name in os.listdir(directory / "out") if name.startswith(".")]
    for number in range(0, count, max(1, count // 50)):
        fleet.check_single(directory, number)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundles", type=int, default=10_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--skip-kills", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as scratch:
        directory = Path(scratch)
        fleet.make_project(directory, asked.bundles)
        whole(directory, asked.bundles, 2)
        for each in (directory / "out", directory / ".rumpbundle"):
            shutil.rmtree(each)
        if not asked.skip_kills:
            share = min(asked.bundles, 1000)
            fleet.make_project(directory, share)
            killed(directory, share)


if __name__ == "__main__":
    main()
