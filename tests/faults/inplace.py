"""Kill a reconfig in place at every step, and look whether the next command finds the old image or the new one.

``PYTHONPATH=.:tests nice python tests/faults/inplace.py [KILLS]`` kills it 1,000 times, at whatever call, and within
one that writes; the suite kills it once at each.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support import kernels

from rumpbundle.cli import main

CALLS = ("open", "pwrite", "write", "ftruncate", "fsync", "rename", "link", "unlink", "close")
"""What changes something, or tells the disk to."""
KINDS = (("raw",), ("iso",), ("vdi",), ("vhd", "fixed"), ("azure",))


def die(number: int) -> None:
    """Kill this process at the call *number* of :data:`CALLS`; at one that writes, after a part of it."""
    count = itertools.count()

    def wrapped(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            if next(count) == number:
                if name == "pwrite":
                    fd, data, offset = args
                    real(fd, bytes(data)[: len(data) // 1024 * 512], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    from rumpbundle.host import rollback

    def begun(*args, **kwargs):
        rollback.apply = real
        for name in CALLS:
            setattr(os, name, wrapped(name))
        return real(*args, **kwargs)

    real, rollback.apply = rollback.apply, begun


def killed(image: Path, config: Path, number: int) -> bool:
    """Reconfigure *image* in a process that dies at call *number*; return whether it died."""
    child = os.fork()
    if not child:
        die(number)
        os._exit(main(["reconfig", str(image), "-q", "-c", str(config), "--in-place"]))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


State = dict[str, bytes]
"""The files of an image, or a kit, with their content."""


def state(image: Path) -> State:
    return {path.name: path.read_bytes() for path in image.parent.iterdir() if not path.name.startswith(".")}


def put(image: Path, files: State) -> None:
    """Write *files* as they were made."""
    for name, content in files.items():
        (image.parent / name).write_bytes(content)


def images(top: Path) -> Iterator[tuple[Path, Path, State, State]]:
    """Yield an image of each kind with its checksums, the configuration to give it, its old state and its new one."""
    kernel = top / "web.bin"
    kernel.write_bytes(kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0")
    for name in ("one", "two"):
        (top / f"{name}.json").write_text(f'{{"env": {{"NAME": "{name * 100}"}}}}')
    for kind in KINDS:
        made = []
        for name in ("two", "one"):
            image = top / kind[0] / f"web.{kind[0]}{'.vhd' if kind[0] == 'azure' else ''}"
            argv = ["build", str(kernel), "-q", "--force", "-f", ":".join(kind), "-c", str(top / f"{name}.json")]
            assert main([*argv, "--checksums", "-o", str(image.parent)]) == 0
            image = next(path for path in image.parent.iterdir() if path.suffix not in (".json", ""))
            made.append(state(image))
        yield image, top / "two.json", made[1], made[0]


def survives(image: Path, config: Path, old: State, new: State, number: int) -> bool:
    """Kill a reconfig of *image* at call *number*, and check what is left; return whether it was killed."""
    put(image, old)
    died = killed(image, config, number)
    assert main(["config", str(image)]) == 0  # any command that is given the image
    assert state(image) in ((old, new) if died else (new,)), f"{image.name} is torn, killed at call {number}"
    assert not list(image.parent.glob(".*.rollback"))
    return died


def campaign(kills: int) -> int:
    """Kill *kills* changes in place, or more; return how many."""
    top = Path(tempfile.mkdtemp(prefix="rumpbundle-inplace-"))
    try:
        kinds = [[*each, next(n for n in itertools.count() if not survives(*each, n))] for each in images(top)]
        draw = random.Random(1)
        done = sum(each[-1] for each in kinds)
        while done < kills:
            *each, calls = draw.choice(kinds)
            done += survives(*each, draw.randrange(calls))
        print(f"{done} kills, none torn", file=sys.stderr)
        return done
    finally:
        shutil.rmtree(top)


if __name__ == "__main__":
    campaign(int(sys.argv[1]) if sys.argv[1:] else 1000)
