"""A sample of what tests/faults/run.py and tests/faults/powercut.py do at length."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess

import pytest
from support import kernels
from support.tools import require

from faults import powercut
from faults.campaign import Campaign, Trial
from rumpbundle import formats

SAMPLED = [name for name in formats.names() if name != "ec2"]  # whose volumes of 1 GiB take a second to look at
EACH = -(-50 // len(SAMPLED))


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    path = tmp_path_factory.mktemp("module") / "module"
    path.write_bytes(random.Random(1).randbytes(3 << 20))
    return path


@pytest.fixture(scope="module")
def campaign(tmp_path_factory, module):
    require("gcc")
    made = Campaign(tmp_path_factory.mktemp("campaign"), kernels.build("multiboot"), module)
    yield made
    made.close()


@pytest.mark.parametrize("format", SAMPLED)
def test_one_call_goes_wrong(campaign, format):
    for trial in campaign.trials(format, EACH, seed=1):
        campaign.run(trial)


@pytest.mark.parametrize("format", ["iso", "gce", "xen"])
def test_a_signal_at_each_naming_call_leaves_what_the_status_says(campaign, format):
    """A file, files beside each other, a directory: who stops us once the name is given has come too late."""
    count = campaign._calls(format, "name", True)
    assert count > 3
    for number in range(1, count + 1):
        campaign.run(Trial(format, "name", number, "TERM", False, True))


@pytest.mark.parametrize("format", SAMPLED)
def test_the_last_look_at_the_inputs_comes_before_the_name(campaign, format):
    count = campaign._calls(format, "read", False)
    campaign.run(Trial(format, "read", count, str(errno.EIO), False, False))


@pytest.fixture(scope="module", params=powercut.FILE_SYSTEMS)
def power(request, tmp_path_factory, module):
    """A file system to cut the power of; where nobody may mount one that is a failure in CI."""
    for program in ("gcc", "mount", f"mkfs.{request.param}"):
        require(program)
    probe = tmp_path_factory.mktemp("probe")
    with (probe / "disk").open("wb") as file:
        file.truncate(powercut.SIZE)
    subprocess.run([shutil.which("mkfs.ext4") or "/usr/sbin/mkfs.ext4", "-q", probe / "disk"], check=True)
    try:
        with powercut.mounted(probe / "disk", probe / "at", "ext4"):
            pass
    except subprocess.CalledProcessError:
        message = "no file system can be mounted here: this needs root and a loop device"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return powercut.PowerCuts(request.param, tmp_path_factory.mktemp("power"), kernels.build("multiboot"), module)


@pytest.mark.parametrize(("format", "old"), [("iso", False), ("iso", True), ("gce", True)])
def test_the_power_is_cut(power, format, old):
    assert power.scenario(format, old, 4, seed=1) > 1


def test_the_cut_is_one(power):
    """What is not synced is lost: else these tests would show nothing."""
    if power.file_system != "ext4":
        return  # one file system shows it
    with pytest.raises(AssertionError, match="power cut on ext4"):
        power.scenario("iso", False, 0, seed=1, sync=False)
