"""Many small files, which a second process reads with us."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

FILES = 6000
SCRIPT = """
import os, signal, sys, threading
from rumpbundle.disk import forked
from rumpbundle.disk.content import Content, FileSlice
from rumpbundle.disk.flat import write_content
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import InputError

top, change = sys.argv[1:]
files = [InputFile(f"{top}/{name}") for name in sorted(os.listdir(top), key=int)]
content = Content(tuple(FileSlice(file, 1, file.size - 1) for file in files))
mains = []
pread, fork = os.pread, os.fork
os.pread = lambda *words: (mains.append(1), pread(*words))[1]
forks = []

def changed_fork():
    forks.append(1)
    match change:
        case "no process":
            raise BlockingIOError
        case "5001" | "5041":
            os.utime(files[int(change)].path)
    child = fork()
    if child and change == "killed":
        os.kill(child, signal.SIGKILL)
    return child

if change == "no fork":
    del os.fork
else:
    os.fork = changed_fork
if change == "thread":
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def report(event):
    if change == "interrupted" and len(mains) > 4096:
        raise KeyboardInterrupt

with open(f"{top}.out", "w+b") as out:
    try:
        write_content(content, out.fileno(), report)
    except InputError as error:
        print(error)
    except KeyboardInterrupt:
        print("interrupted")
assert len(forks) <= 1
print(len(mains))
try:
    os.waitpid(-1, 0)
    print("a child is left")
except ChildProcessError:
    print("no child is left")
"""


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("many") / "files"
    top.mkdir()
    for number in range(FILES):
        size = 20_000 if number % 50 == 0 or 4179 < number < 4260 else 300 * (number % 7) + 1
        (top / str(number)).write_bytes(blake3(b"%d" % number).digest(size))
    return top


def write(top: Path, change: str) -> list[str]:
    """Write the files, each without its first byte, one behind the other; return what was said."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT, top, change], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    *said, left = ran.stdout.splitlines()
    assert left == "no child is left"
    return said


def is_whole(top: Path) -> bool:
    whole = b"".join((top / str(number)).read_bytes()[1:] for number in range(FILES))
    return Path(f"{top}.out").read_bytes() == whole


def test_half_of_the_files_behind_the_first_are_read_by_it(top):
    [read_here] = write(top, "nothing")
    assert 4096 < int(read_here) < 4096 + (FILES - 4096) // 2
    assert is_whole(top)


@pytest.mark.parametrize("change", ["no process", "no fork", "thread", "killed"])
def test_without_it_all_are_read_here(top, change):
    [read_here] = write(top, change)
    assert int(read_here) == FILES if change != "killed" else int(read_here) > 4096
    assert is_whole(top)


@pytest.mark.parametrize("number", ["5001", "5041"])  # one of which it would have read
def test_a_changed_file_is_told_by_its_name_whoever_finds_it(top, number):
    said, _ = write(top, number)
    assert said == f"{top}/{number}: changed while it was read"


def test_it_ends_with_us(top):
    said, _ = write(top, "interrupted")
    assert said == "interrupted"
