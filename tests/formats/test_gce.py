"""The GCE kit against the Compute API's own document, GNU tar and Python."""

from __future__ import annotations

import gzip
import hashlib
import json
import shlex
import tarfile

import pytest
from support.clouds import gce_errors, kit
from support.kernels import SUCCESS, build
from support.qemu import boot
from support.tools import output_of

from rumpbundle.errors import UsageError
from rumpbundle.kernels.unikernel import Family


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A kit with all that is optional: the archive, the request, the command lines."""
    directory = tmp_path_factory.mktemp("gce")
    (archive, request), commands = kit(
        build("multiboot"),
        directory / "my app.gce.tar.gz",
        "gce",
        name="web-1",
        size=1 << 30,  # is written into the bundle; Google's disks are of whole GiB without it too
        options={"tag": ("owner=me", "env="), "description": "hello, world", "driver": ("gvnic", "virtio-scsi")},
    )
    return archive, json.loads(request.read_text()), commands


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The same disk, written plainly."""
    output = tmp_path_factory.mktemp("raw") / "disk.raw"
    kit(build("multiboot"), output, "raw", name="web-1", size=1 << 30)
    return output


def features(tmp_path, *, kernel="multiboot", **choices):
    tmp_path.mkdir(exist_ok=True)
    (_, request), _ = kit(build(kernel), tmp_path / "app.gce.tar.gz", "gce", **choices)
    return [feature["type"] for feature in json.loads(request.read_text())["guestOsFeatures"]]


def test_the_request_obeys_the_whole_document(made):
    assert gce_errors("Image", made[1]) == []
    assert made[1]["rawDisk"]["source"].endswith("/BUCKET/my%20app.gce.tar.gz")


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"name": "Web"},
        {"name": "x" * 64},
        {"name": "x", "status": "READY"},
        {"name": "x", "arch": "X86_64"},
        {"name": "x", "architecture": "x86_64"},
        {"name": "x", "guestOsFeatures": [{"type": "NVME"}]},
        {"name": "x", "diskSizeGb": 1},
        {"name": "x", "labels": {"a": 1}},
    ],
)
def test_the_document_walk_would_notice(broken):
    assert gce_errors("Image", broken)


@pytest.fixture(scope="module")
def extracted(made, tmp_path_factory):
    """What GNU tar (and gzip below it, which checks the CRC) takes out of the archive, and what tar says of it."""
    directory = tmp_path_factory.mktemp("extracted")
    flags = ["-vv", "--numeric-owner", "--utc", "--sparse", "-C", str(directory)]
    said = output_of("tar", "--extract", *flags, "-zf", str(made[0]))
    return directory / "disk.raw", said


def test_gnu_tar_and_gzip_read_the_disk(extracted, raw):
    disk, said = extracted
    assert said.split() == ["-rw-r--r--", "0/0", str(1 << 30), "1970-01-01", "00:00", "disk.raw"]
    output_of("cmp", str(disk), str(raw))


def test_python_reads_the_archive(made):
    with tarfile.open(made[0]) as tar:
        (member,) = tar
        assert (member.name, member.size, member.type) == ("disk.raw", 1 << 30, tarfile.REGTYPE)


def test_the_archive_is_what_gnu_tar_makes(made, raw):
    flags = ["--format=oldgnu", "--owner=0", "--group=0", "--numeric-owner", "--mode=0644", "--mtime=@0"]
    theirs = output_of("sh", "-c", f"tar -C {raw.parent} {' '.join(flags)} -cf - disk.raw | sha256sum").split()[0]
    with gzip.open(made[0]) as ours:
        assert hashlib.file_digest(ours, "sha256").hexdigest() == theirs


def test_the_archive_is_small_and_does_not_depend_on_jobs(made, tmp_path):
    from rumpbundle import Recipe, formats, plan, write

    assert made[0].stat().st_size < 4 << 20
    written = set()
    for jobs in (1, 3):
        planned = plan(Recipe(app=build("multiboot")))
        output = tmp_path / f"{jobs}.gce.tar.gz"
        write(planned, formats.find("gce"), output, jobs=jobs)
        written.add(output.read_bytes())
    assert len(written) == 1


def test_a_guest_without_the_drivers_promises_nothing(tmp_path):
    assert features(tmp_path) == []
    assert features(tmp_path / "other", guest={"drivers": frozenset({"virtio-scsi"})}) == []


def test_a_linux_that_boots_both_ways_says_what_its_user_says(tmp_path):
    found = features(
        tmp_path, kernel="linux", guest={"family": Family.LINUX}, options={"driver": ("gvnic", "virtio-scsi")}
    )
    assert found == ["UEFI_COMPATIBLE", "GVNIC", "VIRTIO_SCSI_MULTIQUEUE"]


@pytest.mark.parametrize(
    ("recipe", "options", "where"),
    [
        ({"name": "Web"}, {}, "--name"),
        ({"name": "web-"}, {}, "--name"),
        ({"name": "w" * 64}, {}, "--name"),
        ({}, {"tag": ("Owner=me",)}, "--tag"),
        ({}, {"tag": ("owner=Me",)}, "--tag"),
        ({}, {"description": "x" * 2049}, "--description"),
        ({}, {"driver": ("ena",)}, "--driver"),
    ],
)
def test_what_gce_would_refuse_is_refused_with_the_rule(tmp_path, recipe, options, where):
    with pytest.raises(UsageError) as caught:
        kit(build("multiboot"), tmp_path / "app.gce.tar.gz", "gce", options=options, **recipe)
    assert caught.value.where == where
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("file", "name"), [("My_App.bin", "my-app"), ("1st.bin", "vm-1st"), ("ß.bin", "vm")])
def test_a_default_name_is_made_to_fit(tmp_path, file, name):
    kernel = tmp_path / file
    kernel.write_bytes(build("multiboot").read_bytes())
    (_, request), _ = kit(kernel, tmp_path / "app.gce.tar.gz", "gce")
    body = json.loads(request.read_text())
    assert body["name"] == name
    assert gce_errors("Image", body) == []


def test_commands_are_shell_lines_that_use_the_files(made):
    archive, body, commands = made
    lines = [shlex.split(line, comments=True) for line in commands]
    assert ["gcloud", "storage", "cp", str(archive), f"gs://BUCKET/{archive.name}"] in lines
    (create,) = [line for line in lines if line[:4] == ["gcloud", "compute", "images", "create"]]
    assert create[4] == body["name"]
    assert f"--description={body['description']}" in create


@pytest.mark.boot
def test_the_disk_boots_from_virtio_scsi(extracted):
    assert boot(extracted[0], bus="scsi").status == SUCCESS
