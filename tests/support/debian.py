"""Files of Debian packages, without installing them: real kernels, boot loaders and tools nobody here wrote.

::

    kernel = debian_file("grub-invaders", "boot/invaders.exec")
    vmlinuz = debian_file("linux-image-cloud-amd64", "boot/vmlinuz-*")

The package is fetched once with ``apt-get download``, unpacked with ``dpkg -x`` and kept in ``.cache/debian`` of
the repository (ignored by git), so it needs no root and only the first run needs the network. Where it cannot be
fetched the test is skipped, and fails where CI is set. On anything but Debian 12 the packages have other names,
files and versions: there the test is skipped.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.tools import require

CACHE = Path(__file__).parents[2] / ".cache" / "debian"


def debian_tree(package: str) -> Path:
    """Return the directory that holds the files of *package* as they lie under ``/``.

    A package without files of its own, such as ``linux-image-amd64``, stands for its first dependency.
    """
    if platform.freedesktop_os_release().get("VERSION_CODENAME") != "bookworm":
        pytest.skip("uses a package of Debian 12")
    tree = CACHE / package
    with _locked():
        if not tree.exists():
            _fetch(package, tree)
    return tree


def debian_file(package: str, pattern: str) -> Path:
    """Return the one file of *package* that matches *pattern*, a path below ``/`` in which ``*`` is allowed."""
    found = sorted(debian_tree(package).glob(pattern))
    assert len(found) == 1, f"{package}: {pattern} names {[str(f) for f in found]}, expected one file"
    return found[0]


def linux_image(flavour: str) -> Path:
    """Return Debian's current Linux kernel of *flavour*, such as ``cloud-amd64``."""
    return debian_file(f"linux-image-{flavour}", "boot/vmlinuz-*")


@contextmanager
def _locked() -> Iterator[None]:
    """Let one process at a time fill the cache; pytest-xdist and other checkouts' runs wait."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(package: str, tree: Path) -> None:
    require("dpkg-deb")
    with TemporaryDirectory(dir=CACHE, prefix=".fetch-") as scratch:
        deb = _download(package, Path(scratch))
        if not any(re.match(r"\./(?!usr/share/(doc|bug|lintian)/).*[^/]$", path) for path in _contents(deb)):
            deb = _download(_first_dependency(deb), Path(scratch))
        unpacked = Path(scratch) / "tree"
        subprocess.run(["dpkg-deb", "-x", deb, unpacked], check=True)
        unpacked.rename(tree)


def _download(package: str, into: Path) -> Path:
    before = set(into.glob("*.deb"))
    done = subprocess.run(
        # apt would drop to its own user, who may not write here.
        [require("apt-get"), "-q", "-o", "APT::Sandbox::User=root", "download", package],
        cwd=into,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        message = f"apt-get download {package}: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    (deb,) = set(into.glob("*.deb")) - before
    return deb


def _contents(deb: Path) -> list[str]:
    """Return the paths in *deb*; those of directories end with ``/``."""
    listing = subprocess.run(["dpkg-deb", "-c", deb], check=True, capture_output=True, text=True).stdout
    return [line.split(maxsplit=5)[5] for line in listing.splitlines()]


def _first_dependency(deb: Path) -> str:
    depends = subprocess.run(["dpkg-deb", "-f", deb, "Depends"], check=True, capture_output=True, text=True).stdout
    return depends.split(",")[0].split()[0]
