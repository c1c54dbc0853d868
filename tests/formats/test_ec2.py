"""The EC2 kit against botocore's models, the aws command and a strict EBS."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import subprocess
import sys

import pytest
from support.clouds import EbsDirect, aws_errors, kit
from support.kernels import SUCCESS, build
from support.qemu import boot
from support.tools import output_of

from rumpbundle.bundling.writing import ModuleFile
from rumpbundle.config import parse
from rumpbundle.errors import InputError, KernelError, UsageError
from rumpbundle.kernels.unikernel import Family

REQUESTS = {
    "import_snapshot": ("ec2", "ImportSnapshot", "import-snapshot"),
    "register_image": ("ec2", "RegisterImage", "register-image"),
    "import_volume": ("ec2", "ImportVolume", "import-volume"),
    "start_snapshot": ("ebs", "StartSnapshot", "start-snapshot"),
    "complete_snapshot": ("ebs", "CompleteSnapshot", "complete-snapshot"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A kit with all that is optional, its manifest and its command lines."""
    directory = tmp_path_factory.mktemp("ec2")
    (output,), commands = kit(
        build("multiboot"),
        directory / "app.ec2",
        "ec2",
        name="web server (1)",
        options={"tag": ("owner=me", "Größe=1 GiB"), "description": "hello", "driver": ("ena",), "imds_v2": True},
    )
    return output, json.loads((output / "manifest.json").read_text()), commands


def request(manifest, name):
    return manifest.get(name) or manifest["ebs_direct"][name]


def registered(tmp_path, *, kernel="multiboot", **choices):
    """Return the RegisterImage request of a kit made with *choices*."""
    (output,), _ = kit(build(kernel), tmp_path / "app.ec2", "ec2", **choices)
    return json.loads((output / "manifest.json").read_text())["register_image"]


def test_the_manifest_has_exactly_the_promised_keys(made):
    _, manifest, _ = made
    assert list(manifest) == [
        *("import_snapshot", "register_image", "import_volume", "ebs_direct", "files", "bundle", "placeholders")
    ]
    assert list(manifest["ebs_direct"]) == ["start_snapshot", "put_snapshot_blocks", "complete_snapshot"]


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_obey_the_whole_model(made, name):
    service, operation, _ = REQUESTS[name]
    assert aws_errors(service, operation, request(made[1], name)) == []


def test_put_requests_obey_the_whole_model(made):
    for entry in made[1]["ebs_direct"]["put_snapshot_blocks"]:
        whole = entry | {"SnapshotId": "snap-0123456789abcdef0", "BlockData": bytes(EbsDirect.BLOCK)}
        assert aws_errors("ebs", "PutSnapshotBlock", whole) == []


@pytest.mark.parametrize(
    ("operation", "broken"),
    [
        ("RegisterImage", {"Name": "ab"}),
        ("RegisterImage", {"Name": "x" * 129}),
        ("RegisterImage", {"Name": "abc", "BootMode": "bios"}),
        ("RegisterImage", {"Name": "abc", "EnaSupport": 1}),
        ("RegisterImage", {"Name": "abc", "Bootmode": "uefi"}),
        ("RegisterImage", {"Name": "abc", "BlockDeviceMappings": [{"Ebs": {"VolumeType": "gp4"}}]}),
        ("RegisterImage", {}),
    ],
)
def test_the_model_walk_would_notice(operation, broken):
    assert aws_errors("ec2", operation, broken)


# There is no `aws ec2 import-volume`, and `aws ebs start-snapshot` (1.46) refuses the answer it makes up itself.
@pytest.mark.parametrize("name", ["import_snapshot", "register_image", "complete_snapshot"])
def test_the_aws_command_accepts_them_without_credentials(made, name, tmp_path):
    service, _, command = REQUESTS[name]
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request(made[1], name)))
    argv = [sys.executable, "-m", "awscli", "--region=us-east-1", service, command]
    done = subprocess.run(
        [*argv, "--cli-input-json", f"file://{path}", "--generate-cli-skeleton=output"],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr


def test_a_strict_ebs_gives_the_volume_back(made):
    output, manifest, _ = made
    plan, ebs = manifest["ebs_direct"], EbsDirect()
    snapshot = ebs.start_snapshot(**plan["start_snapshot"])
    with open(output / "volume.raw", "rb") as volume:
        for entry in plan["put_snapshot_blocks"]:
            volume.seek(entry["BlockIndex"] * EbsDirect.BLOCK)
            data = volume.read(entry["DataLength"]).ljust(entry["DataLength"], b"\0")
            ebs.put_snapshot_block(**entry, SnapshotId=snapshot, BlockData=data)
        ebs.complete_snapshot(**(plan["complete_snapshot"] | {"SnapshotId": snapshot}))
        volume.seek(0)
        for block in ebs.blocks(snapshot):
            assert volume.read(EbsDirect.BLOCK) == block
        assert volume.read() == b""


def test_a_strict_ebs_notices_a_wrong_promise(made):
    plan = made[1]["ebs_direct"]
    ebs = EbsDirect()
    snapshot = ebs.start_snapshot(**plan["start_snapshot"])
    with pytest.raises(AssertionError):
        ebs.put_snapshot_block(**plan["put_snapshot_blocks"][0], SnapshotId=snapshot, BlockData=bytes(524288))
    with pytest.raises(AssertionError):
        ebs.complete_snapshot(**(plan["complete_snapshot"] | {"SnapshotId": snapshot}))


def test_files_are_described_truly(made):
    output, manifest, _ = made
    assert set(manifest["files"]) == {path.name for path in output.iterdir()} - {"manifest.json"}
    for name, described in manifest["files"].items():
        path = output / name
        assert described["size"] == path.stat().st_size
        with path.open("rb") as file:
            assert described["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    blocks = manifest["files"]["volume.raw"]["blocks"]
    checksum = base64.b64decode(manifest["ebs_direct"]["complete_snapshot"]["Checksum"])
    assert blocks["sha256_of_block_sha256s"] == checksum.hex()
    assert (output / "volume.raw").stat().st_blocks * 512 < 4 << 20


def test_a_stream_vmdk_is_for_importing_and_holds_the_same_disk(tmp_path):
    (output,), commands = kit(build("multiboot"), tmp_path / "app.ec2", "ec2", subformat="stream")
    manifest = json.loads((output / "manifest.json").read_text())
    vmdk = output / "volume.vmdk"
    assert manifest["files"]["volume.vmdk"] == {
        "size": vmdk.stat().st_size,
        "sha256": hashlib.sha256(vmdk.read_bytes()).hexdigest(),
    }
    container = manifest["import_snapshot"]["DiskContainer"]
    assert container["Format"] == manifest["import_volume"]["Image"]["Format"] == "VMDK"
    assert manifest["import_volume"]["Image"]["Bytes"] == vmdk.stat().st_size
    assert aws_errors("ec2", "ImportSnapshot", manifest["import_snapshot"]) == []
    assert aws_errors("ec2", "ImportVolume", manifest["import_volume"]) == []
    output_of("qemu-img", "compare", "-f", "vmdk", "-F", "raw", str(vmdk), str(output / "volume.raw"))
    (upload,) = [shlex.split(line) for line in commands if line.startswith("aws s3 cp")]
    assert upload[3:] == [str(vmdk), f"s3://BUCKET/{container['UserBucket']['S3Key']}"]


def test_placeholders_are_where_they_are_listed_and_nowhere_else(made):
    manifest = made[1]

    def places(value, at="$"):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from places(item, f"{at}.{key}")
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from places(item, f"{at}[{number}]")
        else:
            yield at, value

    listed = {place: entry["value"] for entry in manifest["placeholders"] for place in entry["in"]}
    values = set(listed.values())
    requests = {key: value for key, value in manifest.items() if key != "placeholders"}
    assert {at: value for at, value in places(requests) if value in values} == listed


def test_a_guest_that_only_bios_is_proven_for_is_not_announced_for_uefi(tmp_path):
    image = registered(tmp_path)
    assert image["BootMode"] == "legacy-bios"
    assert image["EnaSupport"] is False
    assert image["VirtualizationType"] == "hvm"
    assert image["Architecture"] == "x86_64"
    assert not {"ImdsSupport", "TpmSupport"} & set(image)


@pytest.mark.parametrize(
    ("firmware", "mode"), [("both", "uefi-preferred"), ("bios", "legacy-bios"), ("uefi", "uefi")]
)
def test_boot_mode_follows_what_image_and_guest_can_do(tmp_path, firmware, mode):
    image = registered(tmp_path, kernel="linux", firmware=firmware, guest={"family": Family.LINUX})
    assert image["BootMode"] == mode


def test_a_xen_pv_kernel_becomes_a_paravirtual_image(tmp_path):
    kernel = build("xen-pv")
    (output,), commands = kit(kernel, tmp_path / "app.ec2", "ec2", cmdline="one two", options={"tag": ("a=b",)})
    manifest = json.loads((output / "manifest.json").read_text())
    image = manifest["register_image"]
    assert aws_errors("ec2", "RegisterImage", image) == []
    assert (image["VirtualizationType"], image["KernelId"]) == ("paravirtual", "aki-00000000")
    assert image["RootDeviceName"] == image["BlockDeviceMappings"][0]["DeviceName"] == "/dev/sda1"
    assert not {"BootMode", "EnaSupport"} & set(image)
    assert ["$.register_image.KernelId"] in [entry["in"] for entry in manifest["placeholders"]]
    assert any("pv-grub-hd0" in line for line in commands)
    assert "kernel /boot/kernel/xen-pv" in extracted(output / "volume.raw", "/boot/grub/menu.lst", tmp_path).decode()
    assert extracted(output / "volume.raw", "/boot/kernel/xen-pv", tmp_path) == kernel.read_bytes()


def test_a_rumprun_on_xen_pv_finds_its_configuration_on_its_disk(tmp_path):
    config = parse(b'{"cmdline": "prog one", "env": {"A": "B"}}', "cfg.json")
    (output,), _ = kit(build("xen-pv-rumprun"), tmp_path / "app.ec2", "ec2", config=config)
    menu = extracted(output / "volume.raw", "/boot/grub/menu.lst", tmp_path).decode()
    assert menu.endswith("kernel /boot/kernel/xen-pv-rumprun _RUMPRUN_ROOTFSCFG=/json.cfg\n")
    assert b'"env":"A=B"' in extracted(output / "volume.raw", "/json.cfg", tmp_path)


def extracted(disk, path, scratch) -> bytes:
    """Return a file of the disk's ISO 9660 as xorriso reads it."""
    output_of("xorriso", "-osirrox", "on", "-indev", str(disk), "-extract", path, str(scratch / "extracted"))
    content = (scratch / "extracted").read_bytes()
    (scratch / "extracted").unlink()
    return content


def test_a_kernel_that_nothing_on_ec2_starts_is_refused(tmp_path):
    with pytest.raises(KernelError):
        kit(build("xen-pvh"), tmp_path / "app.ec2", "ec2")


@pytest.mark.parametrize(
    ("cmdline", "modules"), [("x" * 1024, 0), ("two\nlines", 0), ("", 2)], ids=["long", "lines", "modules"]
)
def test_what_pv_grub_cannot_be_told_is_refused(tmp_path, cmdline, modules):
    with pytest.raises(InputError):
        kit(
            build("xen-pv"),
            tmp_path / "app.ec2",
            "ec2",
            cmdline=cmdline,
            modules=tuple(ModuleFile(build("efi")) for _ in range(modules)),
        )


def test_a_linked_ena_driver_is_announced(tmp_path):
    assert registered(tmp_path, guest={"drivers": frozenset({"ena", "nvme"})})["EnaSupport"] is True


def test_what_the_user_says_of_the_guest_is_announced(tmp_path):
    image = registered(tmp_path, firmware="uefi", options={"imds_v2": True, "tpm": True, "driver": ("ena",)})
    assert (image["ImdsSupport"], image["TpmSupport"], image["EnaSupport"]) == ("v2.0", "v2.0", True)


@pytest.mark.parametrize(
    ("recipe", "options", "where"),
    [
        ({"name": "a#b"}, {}, "--name"),
        ({"name": "ab"}, {}, "--name"),
        ({}, {"description": "x" * 256}, "--description"),
        ({}, {"description": "two\nlines"}, "--description"),
        ({}, {"tag": ("aws:x=1",)}, "--tag"),
        ({}, {"tag": ("novalue",)}, "--tag"),
        ({}, {"tag": ("a=1", "a=2")}, "--tag"),
        ({}, {"tag": (f"{'k' * 128}=1",)}, "--tag"),
        ({}, {"tag": tuple(f"k{i}=1" for i in range(51))}, "--tag"),
        ({}, {"driver": ("enna",)}, "--driver"),
        ({}, {"tpm": True}, "--tpm"),
    ],
)
def test_what_ec2_would_refuse_is_refused_with_the_rule(tmp_path, recipe, options, where):
    with pytest.raises(UsageError) as caught:
        kit(build("multiboot"), tmp_path / "app.ec2", "ec2", options=options, **recipe)
    assert caught.value.where == where
    assert list(tmp_path.iterdir()) == []


def test_a_default_name_is_made_to_fit(tmp_path):
    kernel = tmp_path / "größe#1.bin"
    kernel.write_bytes(build("multiboot").read_bytes())
    (output,), _ = kit(kernel, tmp_path / "app.ec2", "ec2")
    assert json.loads((output / "manifest.json").read_text())["register_image"]["Name"] == "große-1".replace("ß", "")


def test_a_volume_larger_than_ebs_has_is_refused(tmp_path):
    with pytest.raises(InputError, match="65536 GiB"):
        kit(build("multiboot"), tmp_path / "app.ec2", "ec2", size=(65536 << 30) + 1)


def test_the_size_asked_for_is_honoured_in_whole_gib(tmp_path):
    (output,), _ = kit(build("multiboot"), tmp_path / "app.ec2", "ec2", size=(1 << 30) + 1)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["files"]["volume.raw"]["size"] == 2 << 30
    assert manifest["register_image"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 2
    assert manifest["ebs_direct"]["start_snapshot"]["VolumeSize"] == 2


def test_commands_are_shell_lines_that_use_the_files(made):
    output, manifest, commands = made
    lines = [shlex.split(line, comments=True) for line in commands]
    assert [line[0] for line in lines if line].count("coldsnap") == 1
    given = {
        line[2]: json.loads(line[line.index("--cli-input-json") + 1]) for line in lines if "--cli-input-json" in line
    }
    assert given == {"import-snapshot": manifest["import_snapshot"], "register-image": manifest["register_image"]}
    assert any(str(output / "volume.raw") in line for line in lines)


def test_same_bytes_whatever_the_number_of_jobs(tmp_path):
    import rumpbundle
    from rumpbundle import formats

    made = []
    for jobs in (1, 3):
        plan = rumpbundle.plan(rumpbundle.Recipe(app=build("multiboot")))
        output = tmp_path / f"{jobs}.ec2"
        rumpbundle.write(plan, formats.find("ec2"), output, jobs=jobs)
        made.append((output / "manifest.json").read_bytes())
    assert made[0] == made[1]


@pytest.mark.boot
def test_the_volume_boots_from_nvme(made):
    assert boot(made[0] / "volume.raw", bus="nvme").status == SUCCESS
