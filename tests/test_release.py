"""A release: two files, the same bytes wherever they are made, with all they have to bring along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.tools import output_of, require

import rumpbundle
from rumpbundle.bootloader import bootimages

ROOT = Path(rumpbundle.__file__).parents[1]
PINNED = json.loads((ROOT / "scripts" / "bootimages.json").read_text("ascii"))
SOMEBODY = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")} | {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def release(place: Path, *words: str, umask: int = 0o022) -> dict[str, bytes]:
    """Run ``scripts/release`` in *place* and return the files it names."""
    done = subprocess.run(
        [sys.executable, "scripts/release", *words],
        cwd=place,
        env=os.environ | SOMEBODY,
        umask=umask,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {name: (place / name).read_bytes() for name in done.stdout.split()}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The commit that is checked out, released as 7.8.9 in two clones of different names."""
    require("grub-mkimage")
    first = tmp_path_factory.mktemp("first") / "clone"
    second = tmp_path_factory.mktemp("second") / "another-name"
    output_of("git", "clone", "-q", str(ROOT), str(first))
    made = release(first, "7.8.9", "2031-02-03")
    output_of("git", "clone", "-q", "--branch", "v7.8.9", str(first), str(second))
    return first, made, release(second, umask=0o077)


def test_two_clones_release_the_same_bytes(released):
    _, made, again = released
    assert sorted(made) == ["dist/rumpbundle-7.8.9-py3-none-any.whl", "dist/rumpbundle-7.8.9.tar.gz"]
    assert made == again


def test_the_changelog_gets_a_dated_section(released):
    text = (released[0] / "CHANGELOG.md").read_text("utf-8")
    assert "\n## Unreleased\n\n## 7.8.9 - 2031-02-03\n" in text


def test_what_is_dated_already_is_only_tagged(released, tmp_path):
    place = tmp_path / "clone"
    output_of("git", "clone", "-q", "--no-tags", str(released[0]), str(place))
    release(place, "7.8.9", "2031-02-03")
    assert output_of("git", "-C", str(place), "describe", "HEAD", "origin/HEAD") == "v7.8.9\nv7.8.9\n"


def test_a_version_is_released_once(released, tmp_path):
    output_of("git", "clone", "-q", str(released[0]), str(tmp_path / "clone"))
    command = [sys.executable, "scripts/release", "7.8.9", "2031-02-04"]
    done = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: there is a tag v7.8.9 already\n")
    output_of("git", "-C", str(tmp_path / "clone"), "tag", "-d", "v7.8.9")
    done = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: CHANGELOG.md has a section 7.8.9 already\n")


def test_a_release_that_fails_leaves_neither_commit_nor_tag(released, tmp_path):
    """As after an update of the machine's GRUB: nothing may be there to push before it is told."""
    require("grub-mkimage")
    place = tmp_path / "clone"
    output_of("git", "clone", "-q", str(released[0]), str(place))
    (place / "scripts/bootimages.json").write_text(json.dumps(PINNED | {"version": "1"}), "ascii")
    environment = os.environ | SOMEBODY
    subprocess.run(["git", "commit", "-q", "-a", "-m", "x"], cwd=place, env=environment, check=True)
    before = output_of("git", "-C", str(place), "rev-parse", "HEAD")
    command = [sys.executable, "scripts/release", "7.9.0", "2031-02-04"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("other boot images than scripts/bootimages.json has\n")
    assert output_of("git", "-C", str(place), "tag", "--list", "v7.9.0") == ""
    assert output_of("git", "-C", str(place), "rev-parse", "HEAD") == before
    assert output_of("git", "-C", str(place), "status", "--porcelain") == ""


def test_a_release_that_fails_loses_no_work(released, tmp_path):
    """What is written while it builds, or by a hook that wants no commit, stays; also where no tag can be made."""
    require("grub-mkimage")
    place = tmp_path / "clone"
    output_of("git", "clone", "-q", str(released[0]), str(place))
    hooks = place / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "post-commit").write_text("#!/bin/sh\necho more >> README.md\n")
    (hooks / "post-commit").chmod(0o755)
    (place / ".git/refs/tags/v7.9.0").mkdir(parents=True)
    (place / ".git/refs/tags/v7.9.0/x").write_text(output_of("git", "-C", str(place), "rev-parse", "HEAD"))
    before = output_of("git", "-C", str(place), "rev-parse", "HEAD")
    command = [sys.executable, "scripts/release", "7.9.0", "2031-02-04"]
    for reason in ("tag", "commit"):
        done = subprocess.run(command, cwd=place, env=os.environ | SOMEBODY, capture_output=True, text=True)
        assert done.returncode == 1
        assert reason in done.stderr.splitlines()[-1]
        assert output_of("git", "-C", str(place), "rev-parse", "HEAD") == before
        assert not list((place / "dist").iterdir())
        changed = output_of("git", "-C", str(place), "status", "--porcelain", "--untracked-files=no")
        assert changed == (" M README.md\n" if reason == "tag" else "")
        output_of("git", "-C", str(place), "checkout", "-q", "README.md")
        (hooks / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
        (hooks / "pre-commit").chmod(0o755)


def test_the_wheel_has_the_pinned_boot_images_and_both_licences(released):
    with zipfile.ZipFile(released[0] / "dist/rumpbundle-7.8.9-py3-none-any.whl") as wheel:
        assert json.loads(wheel.read("rumpbundle/bootimages/facts.json")) == PINNED
        info = "rumpbundle-7.8.9.dist-info"
        metadata = wheel.read(f"{info}/METADATA").decode("utf-8")
        assert "License-Expression: BSD-2-Clause AND GPL-3.0-or-later\n" in metadata
        assert b"apt-get source grub2=VERSION" in wheel.read(f"{info}/licenses/LICENSE")
        assert b"Version 3, 29 June 2007" in wheel.read(f"{info}/licenses/LICENSES/GPL-3.0-or-later.txt")


def test_the_sdist_has_what_git_has_and_nothing_else(released):
    with tarfile.open(released[0] / "dist/rumpbundle-7.8.9.tar.gz") as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()} - {"PKG-INFO"}
    kept = set(output_of("git", "-C", str(released[0]), "ls-files").split("\n"))
    assert packed <= kept
    assert {name.partition("/")[0] for name in kept - packed} <= {"", ".ci", ".github"}


def test_the_boot_images_are_those_that_are_pinned(tmp_path):
    """If this fails after a change that is meant: ``scripts/release --pin``."""
    require("grub-mkimage")
    made = bootimages.make_boot_images(tmp_path)
    if made.version != PINNED["version"]:
        pytest.skip(f"GRUB {made.version} is installed; {PINNED['version']} is pinned")
    assert made.kept == PINNED


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", "workflows/*.yml"), ("github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml")],
)
def test_github_understands_its_files(schema, files):
    found = [str(path) for path in sorted((ROOT / ".github").glob(files))]
    assert len(found) == 2
    output_of(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *found)
