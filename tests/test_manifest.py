"""A long manifest: written up to the limit, read up to the same one, and never in more memory than it must be."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import stub

from rumpbundle import hybrid, manifest
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File
from rumpbundle.errors import InputError
from rumpbundle.images.report import inspect
from rumpbundle.launcher.image import opened


def bundle(names, **more):
    content = Content.of_bytes(b"x")
    return stub.bundle(root=Directory.of("", [File(name, content) for name in names]), **more)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A disk whose manifest has more than 16 MiB."""
    from rumpbundle.disk.flat import write_flat

    made = bundle((f"{number:0200}" for number in range(60_000)), bus="scsi")
    assert len(made.manifest(hashed=False)) > 17 << 20
    path = tmp_path_factory.mktemp("long") / "disk.raw"
    with path.open("wb") as file:
        write_flat(hybrid.plan(made, stub.IMAGES), file.fileno())
    return path


def test_what_it_says_reaches_the_launcher(image):
    with opened(image, persist=False) as found:
        assert found.drivers == {"scsi"}
        assert found.manifest["family"] == "plain"
        assert "files" not in found.manifest


def test_it_reaches_the_report(image):
    found = inspect(image)
    assert found.manifest["bus"] == "scsi"
    assert len(found.manifest["files"]) == 60_000


@pytest.mark.usefixtures("unmeasured")
def test_the_launcher_reads_it_in_little_memory(image):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (256 << 20, -1))\n"
        "from rumpbundle.launcher.image import opened\n"
        "with opened(sys.argv[1], persist=False) as found: print(*found.drivers)"
    )
    done = subprocess.run([sys.executable, "-c", code, image], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("scsi\n", "")


def test_one_that_nobody_would_read_is_not_written(monkeypatch):
    monkeypatch.setattr(hybrid, "MAX_MANIFEST", len(bundle("ab").manifest(hashed=False)))
    hybrid.plan(bundle("ab"), stub.IMAGES)
    with pytest.raises(InputError, match="so many files: their list takes"):
        hybrid.plan(bundle("abc"), stub.IMAGES)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"files": [', b'"x"', b'{"bus": \xff}', b'{"bus": 1e999}', b'{"bus": ' + b"9" * 6000]
)
def test_what_is_none_is_a_value_error(text):
    with pytest.raises(ValueError):
        manifest.said(text)


@pytest.fixture(scope="module")
def longest(tmp_path_factory):
    """A disk whose manifest has 47 MB."""
    from rumpbundle.disk.flat import write_flat

    content = Content.of_bytes(b"x")
    files = [File(f"{number:0123}", content) for number in range(500)]
    trees = [Directory.of(f"{number:0160}", files) for number in range(232)]
    made = stub.bundle(root=Directory.of("", trees))
    assert 47_000_000 < len(made.manifest(hashed=False)) < manifest.MAX_MANIFEST
    path = tmp_path_factory.mktemp("longest") / "disk.raw"
    with path.open("wb") as file:
        write_flat(hybrid.plan(made, stub.IMAGES), file.fileno())
    return path


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("words", [("ls",), ("inspect", "--json")], ids=" ".join)
def test_an_image_with_one_of_47_mb_is_listed_in_512_mib(longest, words):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))\n"
        "from rumpbundle.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, words[0], longest, *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{499:0123}" in done.stdout
