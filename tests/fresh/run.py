"""The first ten minutes on a fresh system: what README.md and docs/start.md tell people to type, as it stands there.

``PYTHONPATH=.:tests nice python tests/fresh/run.py [bookworm|trixie|noble]`` needs root, debootstrap, some minutes
and 2 GB for each. It makes a root with nothing but git, make, python3 and sudo in it, and works there: once from a
clone of this commit, once from its wheel, which stands in for the one on PyPI. Only /proc is mounted. It ends at the
first command that fails, or shows something else than the page does, and at a package that we name and the system has
not. All of them have to make the same images, byte for byte. This machine's certificates are copied, so that pip
reaches its index as it does here.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.kernels import ROOT
from support.pages import blocks, run_blocks
from test_docs_words import KNOWN

DEBIAN = ("http://deb.debian.org/debian", "main")
UBUNTU = ("http://archive.ubuntu.com/ubuntu", "main,universe")
MIRRORS = {"bookworm": DEBIAN, "trixie": DEBIAN, "noble": UBUNTU}
SCRIPTS = Path("/usr/share/debootstrap/scripts")
PACKAGES = "ca-certificates,git,make,python3,sudo"
"""What the README asks for before it starts, what git and pip want for https, and its ``sudo``."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
NAMED = ("CURL_CA_BUNDLE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that lead programs to the certificates."""

ALIKE = "iso,raw,vdi,vhd,vhd:fixed,vhdx,qcow2,vmdk,vmdk:stream,ova,ec2,gce,azure"


class Fresh:
    """A root directory with a fresh system in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        kept = {name: CERTIFICATES for name in NAMED if os.environ.get(name) == CERTIFICATES}
        paths = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.env = {"HOME": "/root", "PATH": paths, "DEBIAN_FRONTEND": "noninteractive"} | kept

    def run(self, command: str, place: Path = Path("/root")) -> subprocess.CompletedProcess[str]:
        """Run *command* in a login shell in *place*, a directory in the root; it has to succeed."""
        inside = 'mount -t proc proc "$0/proc" && exec chroot "$0" bash -lc "$1"'
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside]
        began = time.monotonic()
        done = subprocess.run(
            [*argv, str(self.root), f"cd '{place}' && {command}"],
            env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        print(f"{time.monotonic() - began:6.1f} s  $ {command}", flush=True)
        if done.returncode:
            sys.exit(f"{done.stdout[-2000:]}{done.stderr[-4000:]}error: status {done.returncode}")
        return done

    def copy_to(self, root: Path) -> Fresh:
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.root), str(root)], check=True)
        return Fresh(root)


def make_root(suite: str, root: Path) -> Fresh:
    """Install *suite* into *root*, as small as it comes."""
    mirror, components = MIRRORS[suite]
    argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", f"--components={components}"]
    # A debootstrap knows no Ubuntu later than itself; the way to install one has had this name since 2007.
    script = [] if (SCRIPTS / suite).exists() else [str(SCRIPTS / "gutsy")]
    subprocess.run([*argv, suite, str(root), mirror, *script], check=True, stdout=subprocess.DEVNULL)
    (root / "etc/apt/apt.conf.d/assume-yes").write_text('APT::Get::Assume-Yes "true";\n')
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")  # services stay off, as in any chroot
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    shutil.copyfile(CERTIFICATES, root / CERTIFICATES.lstrip("/"))
    return Fresh(root)


def page(name: str) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Return the commands of each ``sh`` block of a page, and its console blocks."""
    text = (ROOT / name).read_text("utf-8")
    shell = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    commands = [[line.partition(" #")[0].strip() for line in block.splitlines()] for block in shell]
    return commands, blocks(text)


def from_a_clone(fresh: Fresh) -> Path:
    """Do what the README says from a clone; return the kernel it made."""
    subprocess.run(["git", "clone", "-q", "--bare", str(ROOT), str(fresh.root / "source.git")], check=True)
    fresh.run("git clone -q /source.git rumpbundle")
    clone = Path("/root/rumpbundle")
    (first, everywhere), shown = page("README.md")
    for command in [*first, *everywhere]:
        fresh.run(command, clone)
    fresh.run("mkdir try && cp rumpbundle/examples/hello/hello.bin try/app.bin")
    run_blocks(shown, Path("/root/try"), fresh.run)
    return fresh.root / "root/try/app.bin"


def from_a_wheel(fresh: Fresh, wheel: Path, kernel: Path) -> str:
    """Do what the quick start says, with *wheel* in the place of the one that PyPI has, and *kernel* as app.bin.

    Return the digests of the images that every system has to make alike.
    """
    shutil.copyfile(wheel, fresh.root / wheel.name)
    (install,), shown = page("docs/start.md")
    assert "pipx install rumpbundle" in install
    fresh.run("apt-get -q update")
    fresh.run(" && ".join(f"apt-cache show {name} > /dev/null" for name in sorted(KNOWN)))
    for command in install:
        fresh.run(command.replace("install rumpbundle", f"install /{wheel.name}"))
    (fresh.root / "root/try").mkdir()
    shutil.copyfile(kernel, fresh.root / "root/try/app.bin")
    run_blocks(shown, Path("/root/try"), fresh.run)
    fresh.run("rm -r try && mkdir try")
    shutil.copyfile(kernel, fresh.root / "root/try/app.bin")
    run_blocks(page("README.md")[1], Path("/root/try"), fresh.run)
    fresh.run(f"rumpbundle build try/app.bin -q -f {ALIKE} -o alike --checksums")
    return (fresh.root / "root/alike/SHA256SUMS").read_text("ascii")


def make_wheel(scratch: Path) -> Path:
    """Return the wheel of this commit."""
    source = scratch / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(scratch / "dist")]
    subprocess.run(build, cwd=source, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = (scratch / "dist").iterdir()
    return wheel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("suite", nargs="*", help=f"of {', '.join(MIRRORS)}; else all")
    parser.add_argument("--directory", type=Path)
    asked = parser.parse_args()
    kernel, digests = b"", set()
    for suite in asked.suite or MIRRORS:
        with tempfile.TemporaryDirectory(prefix="rumpbundle-fresh-", dir=asked.directory) as name:
            scratch = Path(name)
            print(f"{suite}: installing", flush=True)
            fresh = make_root(suite, scratch / "clone")
            other = fresh.copy_to(scratch / "wheel")
            print(f"{suite}: from a clone", flush=True)
            made = from_a_clone(fresh)
            kernel = kernel or made.read_bytes()  # compilers differ
            made.write_bytes(kernel)
            print(f"{suite}: from a wheel", flush=True)
            digests.add(from_a_wheel(other, make_wheel(scratch), made))
            print(f"{suite}: everything did what the pages show", flush=True)
    print(min(digests), end="")
    if len(digests) > 1:
        sys.exit("error: the systems made different images")


if __name__ == "__main__":
    main()
