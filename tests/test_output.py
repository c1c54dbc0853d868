"""Outputs are whole under their name, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rumpbundle.cli import main
from rumpbundle.disk.flat import disk_errors
from rumpbundle.errors import HostError, InputError, UsageError
from rumpbundle.host import leftovers, naming
from rumpbundle.host.staging import check_free, staged_batch, staged_directory, staged_file, staged_kit


@pytest.fixture(params=["nameless", "named"])
def staging(request, monkeypatch):
    """Try both ways to stage a file: O_TMPFILE, and a temporary name where the file system has no such thing."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")
    return request.param


def test_a_file_appears_when_the_block_ends(tmp_path, staging):
    path = tmp_path / "out"
    with staged_file(path) as staged:
        os.write(staged.fd, b"data")
        assert not path.exists()
        with open(staged.path, "rb") as same:
            assert same.read() == b"data"
    assert path.read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_nothing_is_left_when_the_block_fails(tmp_path, staging):
    def interrupted():
        with staged_file(tmp_path / "out") as staged:
            os.write(staged.fd, b"data")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_an_existing_file_stays_without_force_and_is_replaced_with_it(tmp_path, staging):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="already exists") as caught, staged_file(path):
        pass
    assert caught.value.hint == "give --force to overwrite it, or another name"
    with pytest.raises(ZeroDivisionError), staged_file(path, force=True):
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    with staged_file(path, force=True) as staged:
        os.write(staged.fd, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, staging):
    path = tmp_path / "out"
    with pytest.raises(UsageError, match="it appeared meanwhile"), staged_file(path):
        path.write_bytes(b"somebody else's")
    assert path.read_bytes() == b"somebody else's"
    assert os.listdir(tmp_path) == ["out"]


def test_a_missing_directory_is_the_users_error(tmp_path):
    with pytest.raises(InputError, match="no such directory") as caught, staged_file(tmp_path / "no" / "out"):
        pass
    assert caught.value.where == str(tmp_path / "no")


def test_a_directory_in_the_way_is_refused_even_with_force(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is a directory"), staged_file(tmp_path / "out", force=True):
        pass


def test_a_file_as_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not a directory"), staged_file(tmp_path / "file" / "out"):
        pass


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "kit"
    with pytest.raises(FileNotFoundError), staged_directory(path) as new:
        (new / "half").write_text((new / "missing").read_text())
    assert os.listdir(tmp_path) == []
    with staged_directory(path) as new:
        (new / "whole").write_text("1")
        assert not path.exists()
    assert os.listdir(path) == ["whole"]
    with pytest.raises(UsageError, match="already exists"), staged_directory(path):
        pass
    with staged_directory(path, force=True) as new:
        (new / "other").write_text("2")
    assert os.listdir(path) == ["other"]


@pytest.mark.parametrize("stranger", ["thesis.tex", "src/"])
def test_a_directory_of_somebody_elses_is_not_replaced(tmp_path, stranger):
    path = tmp_path / "kit"
    path.mkdir()
    (path / "volume.raw").write_text("1")
    if stranger.endswith("/"):
        (path / stranger).mkdir()
    else:
        (path / stranger).write_text("years of work")
    before = sorted(os.listdir(path))
    with (
        pytest.raises(UsageError, match=f"holds '{stranger.rstrip('/')}', which is not rumpbundle's"),
        staged_directory(path, ("volume.*", "src"), force=True),
    ):
        pass
    assert sorted(os.listdir(path)) == before


@pytest.mark.parametrize("name", [".", "../here", ".."])
def test_a_directory_is_replaced_by_its_own_name_only(tmp_path, monkeypatch, name):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    if name == "../here":
        with staged_directory(Path(name), force=True) as new:
            (new / "file").write_text("new")
        assert (tmp_path / "here" / "file").read_text() == "new"
        return
    with (
        pytest.raises(UsageError, match="is no name that could be replaced") as caught,
        staged_directory(Path(name), force=True),
    ):
        pytest.fail("it was begun")
    assert caught.value.hint == f"give the directory's own: {os.path.realpath(name)}"
    assert os.listdir(here) == []


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    # As a device is not; a FIFO and a socket can be made without harm.
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):
        listener.bind("socket")
    Path(tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "socket", "link"):
        with (
            pytest.raises(UsageError, match="is no regular file") as caught,
            staged_file(tmp_path / name, force=True),
        ):
            pass
        assert caught.value.hint == "write to a file, then copy that: dd if=FILE of=DEVICE bs=4M conv=fsync"
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "socket"]


def test_the_files_of_a_kit_appear_together(tmp_path):
    path, beside = tmp_path / "a.gz", tmp_path / "a.json"
    with pytest.raises(FileNotFoundError), staged_kit(path, (beside,)) as new:
        (new / "a.gz").write_text((new / "missing").read_text())
    assert os.listdir(tmp_path) == []
    with pytest.raises(HostError), staged_kit(path, (beside,)) as new:
        (new / "a.gz").write_text("x")
    assert os.listdir(tmp_path) == []
    with staged_kit(path, (beside,)) as new:
        (new / "a.gz").write_text("x")
        (new / "a.json").write_text("y")
    assert sorted(os.listdir(tmp_path)) == ["a.gz", "a.json"]
    path.unlink()
    with pytest.raises(UsageError, match=r"a\.json: already exists"), staged_kit(path, (beside,)):
        pass


@pytest.fixture(params=["exchanged", "moved"])
def exchange(request, monkeypatch):
    """Try both ways to replace a directory: in one step, and where the kernel cannot do that."""
    if request.param == "moved":
        monkeypatch.setattr(naming, "_rename", lambda old, new, how: False)
    return request.param


def test_where_it_is_not_linux_nobody_looks_for_calls_of_linux(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "emscripten")
    monkeypatch.setitem(sys.modules, "ctypes", None)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    assert not naming.exchange(tmp_path / "a", tmp_path / "b")
    naming.rename_new(tmp_path / "a", tmp_path / "c")
    assert contents(tmp_path) == {"b": "b", "c": "a"}


def kit(directory: Path, text: str, *, force: bool = True) -> None:
    with staged_kit(directory / "a.gz", (directory / "a.json",), force=force) as new:
        (new / "a.gz").write_text(f"{text} disk")
        (new / "a.json").write_text(f"{text} request")


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


OLD = {"a.gz": "old disk", "a.json": "old request"}
NEW = {"a.gz": "new disk", "a.json": "new request"}


@pytest.mark.parametrize("call", ["link", "rename", "fsync", "mkdir"])
@pytest.mark.parametrize("force", [True, False])
def test_a_failure_at_any_call_leaves_all_old_or_all_new(tmp_path, exchange, monkeypatch, call, force):
    """Every call that names or syncs fails once: what is left is the old files, or the new ones, and nothing else."""
    seen = 0
    for number in range(40):
        if force:
            kit(tmp_path, "old")
        before = contents(tmp_path)
        count = 0
        real = getattr(os, call)

        def failing(*arguments, number=number, real=real, **options):
            nonlocal count
            count += 1
            if count == number + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **options)

        monkeypatch.setattr(os, call, failing)
        try:
            kit(tmp_path, "new", force=force)
            done = True
        except HostError:
            done = False
        monkeypatch.setattr(os, call, real)
        assert contents(tmp_path) == (NEW if done else before), (call, number)
        assert len(os.listdir(tmp_path)) == len(contents(tmp_path))
        for path in tmp_path.iterdir():
            path.unlink()
        seen += count > number
        if count <= number:
            break
    assert seen or call in ("link", "mkdir", "rename")


@pytest.mark.parametrize("last", range(12))
@pytest.mark.parametrize("had", [OLD, {}])
def test_the_next_run_puts_right_what_a_kill_has_left(tmp_path, exchange, last, had):
    """A process is killed at its *last*-th naming: old or new come back, and the leftovers go."""
    for name, text in had.items():
        (tmp_path / name).write_text(text)
    child = os.fork()
    if not child:
        calls = 0

        def counting(real):
            def call(*arguments, **options):
                nonlocal calls
                if calls == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls += 1
                return real(*arguments, **options)

            return call

        for name in ("link", "rename", "unlink"):
            setattr(os, name, counting(getattr(os, name)))
        naming._rename = counting(naming._rename)
        try:
            kit(tmp_path, "new", force=bool(had))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    leftovers.put_right(tmp_path)
    assert contents(tmp_path) in (had, NEW)
    assert len(os.listdir(tmp_path)) == len(contents(tmp_path))


def test_what_somebody_still_works_on_stays(tmp_path):
    with staged_kit(tmp_path / "a.gz", ()) as new:
        (new / "a.gz").write_text("x")
        before = os.listdir(tmp_path)
        leftovers.put_right(tmp_path)
        script = (
            f"from rumpbundle.host import leftovers, staging; leftovers.put_right(staging.Path({str(tmp_path)!r}))"
        )
        root = str(Path(__file__).parents[1])
        subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": root})
        assert os.listdir(tmp_path) == before
    assert os.listdir(tmp_path) == ["a.gz"]


def test_leftovers_of_other_machines_and_users_stay(tmp_path, monkeypatch):
    host, boot = leftovers._place()
    ours, earlier = f".a.{host}-{boot}.1-0.part", f".a.{host}-0badb007.1-0.part"
    foreign = [".a.elsewhere-0badb007.1-0.part", ".a.part", "a.part", ".a.x.part", f".a.{host}-{boot}.1-0.partial"]
    for name in (ours, earlier, *foreign):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    leftovers.put_right(tmp_path)
    assert len(os.listdir(tmp_path)) == 7
    monkeypatch.undo()
    leftovers.put_right(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(foreign)


def test_a_journal_leads_nowhere_else(tmp_path):
    """What stands in a journal is not believed: no name in it leads out of the directory."""
    host, boot = leftovers._place()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = tmp_path / "in"
    left = directory / f".a.{host}-{boot}.1-0.part"
    (left / "old").mkdir(parents=True)
    for text in (json.dumps({"../victim": leftovers.mark(victim)}), "[]", "{", '{"a": 1}', '{"": null}', "\xff"):
        left.mkdir(exist_ok=True)
        (left / leftovers.JOURNAL).write_text(text, "utf-8")
        leftovers.put_right(directory)
        assert victim.read_text() == "precious"
        assert os.listdir(directory) == []


def test_a_signal_between_the_names_waits(tmp_path, exchange, monkeypatch):
    """Ctrl-C while files get their names: all are there, and then it is heard."""
    kit(tmp_path, "old")
    rename = os.rename
    # As a program has it that only imports us; what tests of the command line leave lets it pass when all is done.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        rename(*arguments)

    monkeypatch.setattr(os, "rename", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            kit(tmp_path, "new")
    finally:
        signal.signal(signal.SIGINT, handler)
    monkeypatch.undo()
    assert contents(tmp_path) == NEW
    assert len(os.listdir(tmp_path)) == 2


def test_a_directory_that_appears_meanwhile_is_not_overwritten(tmp_path, exchange):
    with pytest.raises(UsageError, match="it appeared meanwhile"), staged_directory(tmp_path / "kit"):
        (tmp_path / "kit").mkdir()

    def overtaken():
        with staged_kit(tmp_path / "a", (tmp_path / "b",)) as new:
            (new / "a").write_text("ours")
            (new / "b").write_text("ours")
            (tmp_path / "b").write_text("theirs")

    with pytest.raises(UsageError, match="it appeared meanwhile"):
        overtaken()
    assert contents(tmp_path) == {"b": "theirs"}
    assert sorted(os.listdir(tmp_path)) == ["b", "kit"]


def test_a_long_name_in_wide_characters(tmp_path):
    path = tmp_path / ("\N{PARTY POPPER}" * 62)
    with staged_file(path, force=True) as staged:
        os.write(staged.fd, b"1")
    with staged_kit(path, (), force=True) as new:
        (new / path.name).write_text("2")
    assert contents(tmp_path) == {path.name: "2"}


def test_the_umask_is_not_touched(tmp_path, staging, monkeypatch):
    """It belongs to the whole process: other threads would make files with the wrong mode meanwhile."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("os.umask was called"))
    with staged_file(tmp_path / "out"):
        pass


@pytest.mark.parametrize("sync", [True, False])
def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, staging, monkeypatch, sync):
    told = []
    for call in ("fdatasync", "fsync", "link", "replace", "rename"):
        real = getattr(os, call)
        monkeypatch.setattr(os, call, lambda *a, call=call, real=real, **o: (told.append(call), real(*a, **o))[1])
    with staged_file(tmp_path / "out", force=True, sync=sync):
        pass
    with staged_directory(tmp_path / "kit", sync=sync) as new:
        (new / "file").touch()
    with staged_kit(tmp_path / "a", (tmp_path / "b",), force=True, sync=sync) as new:
        (new / "a").touch()
        (new / "b").touch()
    if sync:
        assert told[0] == "fdatasync"
        assert told.count("fdatasync") == 4
    else:
        assert {"fdatasync", "fsync"} & set(told) <= {"fsync"}  # a kit's journal
        assert "fdatasync" not in told


def test_a_command_that_names_a_torn_kit_puts_it_right(tmp_path, capsys):
    host, boot = leftovers._place()
    scratch = tmp_path / f".a.gz.{host}-{boot}.1-0.part"
    for name in ("old", "new"):
        (scratch / name).mkdir(parents=True)
    for name, text in NEW.items():
        (scratch / "new" / name).write_text(text)
    for name, text in OLD.items():
        (tmp_path / name).write_text(text)
        os.link(tmp_path / name, scratch / "old" / name)
    leftovers.write_journal(scratch, list(OLD))
    os.rename(scratch / "new" / "a.gz", tmp_path / "a.gz")
    assert contents(tmp_path) == NEW | {"a.json": "old request"}
    main(["ls", str(tmp_path / "other")])
    assert contents(tmp_path) == NEW | {"a.json": "old request"}
    main(["ls", str(tmp_path / "a.json")])
    assert contents(tmp_path) == OLD
    assert len(os.listdir(tmp_path)) == 2


def test_an_open_file_is_no_place_for_an_output(tmp_path):
    """/dev/stdout is a link that --force would replace for everybody."""
    (tmp_path / "out").symlink_to("/dev/stdout")
    (tmp_path / "indirect").symlink_to("out")
    with (tmp_path / "open").open("w") as file:
        (tmp_path / "mine").symlink_to(f"/proc/self/fd/{file.fileno()}")
        for name in (tmp_path / "mine", f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            with pytest.raises(UsageError, match="is an open file of a process, and no place for one"):
                check_free(Path(name), force=True)
    for name in ("out", "indirect"):
        with pytest.raises(UsageError, match=r"is an open file of a process|is no regular file"):
            check_free(tmp_path / name, force=True)
    (tmp_path / "plain").symlink_to("open")
    check_free(tmp_path / "plain", force=True)


def swapped(directory: Path) -> Path:
    """Move *directory* away, put a link to another in its place, and return where the first is now."""
    moved, other = directory.with_name("moved"), directory.with_name("other")
    other.mkdir()
    (other / "app.iso").write_text("somebody's")
    directory.rename(moved)
    directory.symlink_to(other)
    return moved


REPLACED = "another directory took its place meanwhile"


def test_a_file_does_not_follow_where_its_directory_was_replaced(tmp_path, staging):
    path = tmp_path / "out" / "app.iso"
    path.parent.mkdir()
    with contextlib.ExitStack() as stack:
        os.write(stack.enter_context(staged_file(path, force=True)).fd, b"data")
        moved = swapped(path.parent)
        with pytest.raises(HostError, match=REPLACED):
            stack.close()
    assert os.listdir(moved) == []
    assert (tmp_path / "other/app.iso").read_text() == "somebody's"


@pytest.mark.parametrize("kind", ["directory", "kit", "batch"])
def test_nor_does_a_kit(tmp_path, kind):
    path = tmp_path / "out" / "app.iso"
    path.parent.mkdir()
    staged = {
        "directory": lambda: staged_directory(path, force=True),
        "kit": lambda: staged_kit(path, (path.with_name("app.json"),), force=True),
        "batch": lambda: staged_batch(path.parent),
    }[kind]
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(staged())
        for name in ("app.iso", "app.json"):
            (new / name).write_text("x")
        moved = swapped(path.parent)
        with pytest.raises(HostError, match=REPLACED):
            stack.close()
    assert os.listdir(moved) == []
    assert os.listdir(tmp_path / "other") == ["app.iso"]
    assert (tmp_path / "other/app.iso").read_text() == "somebody's"


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "no space left on the output's file system"), (errno.EDQUOT, "the disk quota on the output's")],
)
def test_a_full_disk_and_a_used_up_quota_are_two_things(tmp_path, monkeypatch, number, says):
    def full(fd):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(naming, "sync_file", full)
    with pytest.raises(HostError, match=says), staged_file(tmp_path / "out"):
        pass
    with pytest.raises(HostError, match=says), disk_errors():
        full(0)
    with pytest.raises(HostError, match=f"out: {says}"), staged_file(tmp_path / "out"), disk_errors():
        full(0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("patience", [0.2, 30.0])
def test_two_kits_do_not_get_their_names_at_once(tmp_path, monkeypatch, patience):
    """One waits for the other, but for nobody who holds the directory for ever."""
    monkeypatch.setattr(leftovers, "_PATIENCE", patience)
    paths = (tmp_path / "a.vhd", tmp_path / "a.json")

    def make() -> None:
        with staged_kit(paths[0], paths[1:], force=True) as new:
            for path in paths:
                (new / path.name).touch()

    thread = threading.Thread(target=make)
    with leftovers.alone(tmp_path):
        thread.start()
        thread.join(1.0)
        assert thread.is_alive() == (patience > 1)
        assert paths[0].exists() == (patience < 1)
    thread.join(30.0)
    assert all(path.exists() for path in paths)
