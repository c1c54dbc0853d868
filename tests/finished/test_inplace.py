"""An image changed in place: the old one or the new one, whatever happens, and never under somebody's hands."""

from __future__ import annotations

import filecmp
import os
import random
import shutil
import subprocess
import sys

import pytest
from faults.inplace import images, killed, put, state, survives
from support.tools import require

from rumpbundle.cli import main
from rumpbundle.host import rollback


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return list(images(tmp_path_factory.mktemp("images")))


@pytest.mark.parametrize("kind", range(5), ids=["raw", "iso", "vdi", "vhd", "azure"])
def test_it_changes_only_what_differs(kinds, kind, monkeypatch):
    image, config, old, new = kinds[kind]
    put(image, old)
    changed = []
    apply = rollback.apply
    monkeypatch.setattr(rollback, "apply", lambda *args, **rest: (changed.extend(args[1]), apply(*args, **rest)))
    inode = image.stat().st_ino
    assert main(["reconfig", str(image), "-q", "-c", str(config), "--in-place"]) == 0
    assert state(image) == new
    assert image.stat().st_ino == inode
    assert 0 < sum(len(patch.new) for patch in changed) < 64 << 10
    assert sorted(os.listdir(image.parent)) == sorted({*os.listdir(image.parent)} - {f".{image.name}.rollback"})


@pytest.mark.parametrize("number", [0, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20])
def test_killed_at_any_call_it_is_old_or_new(kinds, number):
    survives(*kinds[number % len(kinds)], number)


def half_changed(kinds):
    """Return an image that a killed run has left half changed, and what it was."""
    image, config, old, _ = kinds[0]
    for number in range(100):
        put(image, old)
        killed(image, config, number)
        if rollback.journal_of(image).exists() and state(image) != old:
            return image, old
    pytest.fail("no kill left it half changed")


def test_who_may_not_write_is_told(kinds, capfd, monkeypatch):
    image, old = half_changed(kinds)
    real = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_RDWR and str(path) == str(image):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert main(["ls", str(image)]) == 3
    assert "is half changed, by a run that was killed" in capfd.readouterr().err
    monkeypatch.undo()
    assert main(["ls", str(image)]) == 0
    assert state(image) == old


@pytest.mark.parametrize("how", ["plain", "link"])
def test_what_cannot_be_changed_is_named_as_it_was_given(kinds, tmp_path, monkeypatch, capfd, how):
    """A read-only file system, where the name leads elsewhere or not."""
    image, config, old, _ = kinds[0]
    put(image, old)
    (tmp_path / "link").symlink_to(image)
    monkeypatch.chdir(tmp_path if how == "link" else image.parent)
    given = "link" if how == "link" else image.name
    real = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_RDWR and os.path.basename(path) == image.name:
            raise OSError(30, "Read-only file system")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert main(["reconfig", given, "-q", "-c", str(config), "--in-place"]) == 3
    assert capfd.readouterr().err == f"error: {given}: cannot be changed: Read-only file system\n"


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["cat", "IMAGE", "/rumpbundle.json"],
        ["config"],
        ["inspect"],
        ["check"],
        ["verify"],
        ["diff", "IMAGE", "IMAGE"],
        ["diff", "OTHER", "IMAGE"],
        ["convert", "IMAGE", "-f", "vdi", "-o", "OUT"],
        ["reconfig", "IMAGE", "-e", "A=1", "-o", "OUT"],
        ["reconfig", "IMAGE", "-e", "A=1", "--in-place", "--dry-run"],
        ["run", "IMAGE", "--dry-run"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_every_command_puts_right_what_it_is_given(kinds, words, tmp_path, capfd):
    image, old = half_changed(kinds)
    put(tmp_path / image.name, old)
    names = {"IMAGE": str(image), "OUT": str(tmp_path / "out"), "OTHER": str(tmp_path / image.name)}
    words = [names.get(word, word) for word in (words if words[1:] else [*words, "IMAGE"])]
    assert main(words) == 0
    assert state(image) == old
    assert not rollback.journal_of(image).exists()


def test_a_file_of_a_kit_is_put_right_with_it(kinds, tmp_path, capfd):
    _, config, _, _ = kinds[0]
    kit = tmp_path / "kit"
    argv = ["-q", "--no-sync", "-c"]
    one = str(config.parent / "one.json")
    assert main(["ec2", str(config.parent / "web.bin"), *argv, one, "-o", str(kit)]) == 0
    before = (kit / "manifest.json").read_bytes()
    for number in range(100):
        killed(kit, config, number)
        if (kit / "manifest.json").read_bytes() != before:
            break
    assert rollback.journal_of(kit).exists()
    assert main(["ls", str(kit / "volume.raw")]) == 0
    assert (kit / "manifest.json").read_bytes() == before
    assert main(["verify", str(kit)]) == 0


@pytest.mark.parametrize("damage", ["journal", "image"])
def test_what_does_not_fit_together_is_left_alone(kinds, capfd, damage):
    image, _ = half_changed(kinds)
    journal = rollback.journal_of(image)
    file = journal if damage == "journal" else image
    data = bytearray(file.read_bytes())
    data[-3 if damage == "journal" else slice(0, len(data))] = 1 if damage == "journal" else bytes(len(data))
    file.write_bytes(data)
    before = image.read_bytes()
    assert main(["ls", str(image)]) == 3
    assert ("damaged" if damage == "journal" else "another file") in capfd.readouterr().err
    assert image.read_bytes() == before
    journal.unlink()


@pytest.mark.parametrize("options", ["", ",snapshot=on"])
def test_what_qemu_has_open_is_refused(kinds, capfd, options):
    require("qemu-system-x86_64")
    image, config, old, _ = kinds[0]
    put(image, old)
    argv = ["qemu-system-x86_64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none", "-nic", "none"]
    argv += ["-drive", f"if=none,id=a,format=raw,file={image}{options}", "-qmp", "stdio"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        try:
            assert qemu.stdout.readline()
            assert main(["reconfig", str(image), "-c", str(config), "--in-place"]) == 3
            assert "is in use" in capfd.readouterr().err
        finally:
            qemu.kill()
    assert state(image) == old


def test_two_at_once_are_not(kinds, capfd):
    image, config, old, _ = kinds[0]
    put(image, old)
    with rollback.locked(image):
        assert main(["reconfig", str(image), "-c", str(config), "--in-place"]) == 3
        assert "is in use" in capfd.readouterr().err


def test_of_a_large_one_nothing_else_is_written(kinds, tmp_path):
    _, config, _, _ = kinds[0]
    large = tmp_path / "large.raw"
    kernel = config.parent / "web.bin"
    assert main(["raw", str(kernel), "-q", "--size", "64G", "-o", str(large)]) == 0
    used = large.stat().st_blocks
    assert main(["reconfig", str(large), "-q", "-c", str(config), "--in-place"]) == 0
    assert large.stat().st_blocks - used < 1000
    shutil.rmtree(tmp_path)


def test_the_manifest_of_an_ec2_kit_stays_true(kinds, tmp_path):
    _, config, _, _ = kinds[0]
    words = ["build", str(config.parent / "web.bin"), "-q", "-f", "ec2", "--checksums"]
    for name, given in (("one", config.parent / "one.json"), ("two", config)):
        assert main([*words, "-c", str(given), "-o", str(tmp_path / name)]) == 0
    kit = tmp_path / "one" / "web.ec2"
    inode = (kit / "volume.raw").stat().st_ino
    assert main(["reconfig", str(kit), "-q", "-c", str(config), "--in-place"]) == 0
    assert (kit / "volume.raw").stat().st_ino == inode
    for name in ("web.ec2/volume.raw", "web.ec2/manifest.json", "SHA256SUMS"):
        assert filecmp.cmp(tmp_path / "one" / name, tmp_path / "two" / name, shallow=False), name


def test_checksums_beside_what_is_written_anew_stay_true(kinds, tmp_path):
    require("qemu-img")
    _, config, _, _ = kinds[0]
    words = ["build", str(config.parent / "web.bin"), "-q", "-f", "qcow2", "--checksums"]
    for name, given in (("one", config.parent / "one.json"), ("two", config)):
        assert main([*words, "-c", str(given), "-o", str(tmp_path / name)]) == 0
    image = tmp_path / "one" / "web.qcow2"
    assert main(["reconfig", str(image), "-q", "-c", str(config), "--in-place"]) == 0
    assert state(image) == state(tmp_path / "two" / "web.qcow2")


def read_by(words):
    """Return the bytes that ``main(words)`` reads, of files and of whatever else."""

    def so_far():
        with open("/proc/self/io") as io:
            return int(io.readline().split()[1])

    main(["version"])  # what every command reads first
    before = so_far()
    assert main(words) == 0
    return so_far() - before


def test_of_a_large_kit_nothing_else_is_read(kinds, tmp_path, capfd):
    _, config, _, _ = kinds[0]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f").write_bytes(random.Random(1).randbytes(48 << 20))
    words = ["ec2", str(config.parent / "web.bin"), "-q", "--size", "64G", "--data", f"{tmp_path / 'data'}:/data"]
    for name, given in (("one", config.parent / "one.json"), ("two", config)):
        assert main([*words, "-c", str(given), "-o", str(tmp_path / name)]) == 0
    assert main(["config", str(tmp_path / "two")]) == 0  # all that is imported for it
    assert read_by(["reconfig", str(tmp_path / "one"), "-q", "-c", str(config), "--in-place"]) < 12 << 20
    assert (tmp_path / "one" / "manifest.json").read_bytes() == (tmp_path / "two" / "manifest.json").read_bytes()
    assert main(["diff", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    "spoiled", [b"[]", b"{", b'{"ebs_direct": {"put_snapshot_blocks": [{"BlockIndex": 1, "Checksum": "x"}]}}']
)
def test_a_manifest_that_does_not_tell_the_blocks_is_made_anew(kinds, tmp_path, spoiled):
    _, config, _, _ = kinds[0]
    words = ["ec2", str(config.parent / "web.bin"), "-q", "--size", "3G"]
    for name, given in (("one", config.parent / "one.json"), ("two", config)):
        assert main([*words, "-c", str(given), "-o", str(tmp_path / name)]) == 0
    (tmp_path / "one" / "manifest.json").write_bytes(spoiled)
    argv = ["reconfig", str(tmp_path / "one"), "-q", "-c", str(config), "--in-place"]
    assert main(argv) == 2  # nor does it tell the options
    all_options = ["--description", "", "--tag", "", "--driver", "", "--no-imds-v2", "--no-tpm", "--no-whole-sha256"]
    assert main([*argv, *all_options]) == 0
    assert (tmp_path / "one" / "manifest.json").read_bytes() == (tmp_path / "two" / "manifest.json").read_bytes()


def test_it_starts_with_little(kinds):
    image, config, old, _ = kinds[0]
    put(image, old)
    script = "import sys; from rumpbundle.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = ["reconfig", str(image), "-q", "-c", str(config), "--in-place"]
    run = subprocess.run([sys.executable, "-c", script, *words], check=True, capture_output=True, text=True)
    loaded = {name for name in run.stdout.split() if name.startswith(("rumpbundle.", "ssl", "http", "urllib"))}
    of_others = {"ssl", "http.client", "urllib.request", "rumpbundle.project.entry", "rumpbundle.finished.convert"}
    of_others |= {f"rumpbundle.images.containers.{name}" for name in ("qcow2", "vmdk", "vhdx", "vhd", "vdi")}
    assert not loaded & of_others


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_what_is_made_anew_is_not_taken_for_the_half_changed_one(kinds, tmp_path, gone):
    image, old = half_changed(kinds)
    kernel = str(image.parent.parent / "web.bin")
    argv = ["raw", kernel, "-q", "-c", str(kinds[0][1]), "-o"]
    assert main([*argv, str(tmp_path / "new.raw")]) == 0
    if gone:
        image.unlink()
    assert main([*argv, str(image), *([] if gone else ["--force"])]) == 0
    assert not rollback.journal_of(image).exists()
    assert main(["ls", str(image)]) == 0
    assert filecmp.cmp(image, tmp_path / "new.raw", shallow=False)
    put(image, old)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into everybody's files")
@pytest.mark.parametrize("through", ["link", "name"])
def test_another_users_journal_changes_nothing_but_his_files(tmp_path, capfd, through):
    """Who looks at an image in somebody's directory, as root, writes where its journal says: only into that one's."""
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    theirs.mkdir()
    mine.mkdir()
    (mine / "passwd").write_bytes(b"root\n")
    image = theirs / "web.iso"
    image.write_bytes(b"")
    if through == "link":
        (theirs / "x").symlink_to(mine)
        victim = theirs / "x" / "passwd"
    else:
        victim = theirs / "passwd"
        os.link(mine / "passwd", victim)
    rollback._write_journal(image, [rollback.Patch(victim, 0, b"evil\n", b"root!")], sync=False)
    for path in (theirs, image, rollback.journal_of(image)):
        os.chown(path, 1, 1)
    assert main(["ls", str(image)]) == 3
    assert "is half changed" in capfd.readouterr().err
    assert (mine / "passwd").read_bytes() == b"root\n"


def test_the_checksums_of_sha256sum_b_stay_true_too(kinds):
    image, config, old, new = kinds[0]
    put(image, old)
    sums = image.parent / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes().replace(b"  web", b" *./web"))
    assert main(["reconfig", str(image), "-q", "-c", str(config), "--in-place"]) == 0
    assert sums.read_bytes() == new["SHA256SUMS"].replace(b"  web", b" *./web")
    put(image, old)
