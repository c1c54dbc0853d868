"""The build record: what was made of what, so that nothing that is up to date is made again.

It stands beside the project file, a line of JSON for each input file and each output, of which the last counts. A
file is known again as git knows it, by size, mtime, ctime and inode; one that was younger than two seconds when it
was read may have changed within the same tick, so it is read again. Without the record all is made anew: it saves
time, and says nothing that cannot be found out.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from rumpbundle.bundling.batch import files_of
from rumpbundle.bundling.writing import Artifact
from rumpbundle.disk.content import Content
from rumpbundle.disk.inputfile import Fingerprint, InputFile
from rumpbundle.errors import HostError, InputError
from rumpbundle.host import leftovers

DIRECTORY = ".rumpbundle"
NAME = "record"
_YOUNG = 2_000_000_000
"""Nanoseconds within which a change may leave no trace."""


class Kept(Struct, frozen=True, array_like=True):
    """A file as it was when it was last read."""

    path: str
    size: int
    mtime: int
    ctime: int
    inode: int
    digest: str
    """Its BLAKE3."""
    seen: int
    """When the run began that read it, by the clock of the file system."""

    @classmethod
    def of(cls, path: str, digest: str, seen: int) -> Kept:
        """Return the file *path* of *digest* as it is now."""
        now = os.stat(path, follow_symlinks=False)
        return cls(path, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, digest, seen)

    def is_still(self, status: os.stat_result) -> bool:
        """Whether the file has not changed since, as far as *status* tells for sure."""
        now = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        same = now == (self.size, self.mtime, self.ctime, self.inode)
        return same and max(self.mtime, self.ctime) + _YOUNG <= self.seen


class RecordedInput(Struct, frozen=True, array_like=True, tag="input"):
    """An input file."""

    kept: Kept


class RecordedOutput(Struct, frozen=True, array_like=True, tag="output"):
    """What was written."""

    path: str
    how: str
    """Format, subformat and the format's options."""
    bundle: str
    """The bundle's digest."""
    files: tuple[Kept, ...]

    @property
    def size(self) -> int:
        return sum(each.size for each in self.files)


Line = RecordedInput | RecordedOutput
_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


def look(path: str, seen: int) -> Kept:
    """Read the file *path* in the run that began at *seen*.

    Raises:
        InputError: it is missing, cannot be read, or changes meanwhile.
    """
    file = InputFile(path)
    digest = Content.of_file(file).digest()
    return _kept(file, digest, seen)


def _kept(file: InputFile, digest: str, seen: int) -> Kept:
    return Kept(os.path.abspath(file.path), *file.state, digest, seen)


def input_line(file: InputFile, digest: str, seen: int) -> RecordedInput:
    return RecordedInput(_kept(file, digest, seen))


def output_line(artifact: Artifact, how: str, bundle: str, seen: int) -> RecordedOutput:
    """Return what is to be remembered of *artifact*, which was just written."""
    return RecordedOutput(
        os.path.abspath(artifact.path), how, bundle, tuple(look(str(file), seen) for file in files_of(artifact))
    )


def standing(output: RecordedOutput | None, how: str, bundle: str, seen: int) -> RecordedOutput | None:
    """Return *output* as it is now if it still is what *bundle* gives, made *how*; None if it has to be made."""
    if output is None or (output.how, output.bundle) != (how, bundle):
        return None
    found = []
    with contextlib.suppress(OSError):
        if os.path.isdir(output.path) and set(os.listdir(output.path)) != {
            os.path.basename(k.path) for k in output.files
        }:
            return None  # a kit that holds more, or less
    for kept in output.files:
        try:
            if not kept.is_still(os.stat(kept.path, follow_symlinks=False)):
                fresh = look(kept.path, seen)
                if fresh.digest != kept.digest:
                    return None
                kept = fresh
        except (OSError, InputError):
            return None
        found.append(kept)
    return msgspec.structs.replace(output, files=tuple(found))


class BuildRecord:
    """The record beside a project file."""

    def __init__(self, beside: str, *, write: bool = True) -> None:
        """Read the record in the directory *beside*; what cannot be understood of it is as if it were not there.

        One that is not to *write* leaves no trace, and takes no file for younger than it is.

        Raises:
            HostError: it cannot be written.
        """
        self._directory = Path(beside or ".") / DIRECTORY
        self._path = self._directory / NAME
        self.inputs: dict[str, RecordedInput] = {}
        self.outputs: dict[str, RecordedOutput] = {}
        """By their absolute path."""
        self._lines = 0
        self.now = 0
        if write:
            self._prepare()
        with contextlib.suppress(OSError):
            for line in self._path.read_bytes().split(b"\n"):
                self._lines += 1
                with contextlib.suppress(msgspec.MsgspecError):
                    self._take(_decode(line))

    def _prepare(self) -> None:
        """Make the record's directory, and learn what time it is there."""
        try:
            self._directory.mkdir(exist_ok=True)
            ignore = self._directory / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", "ascii")
            with tempfile.TemporaryFile(dir=self._directory) as scratch:
                self.now = os.fstat(scratch.fileno()).st_mtime_ns
        except OSError as error:
            raise HostError(f"cannot be written: {os.strerror(error.errno or 0)}", where=self._directory) from None
        leftovers.put_right(self._directory)

    def _take(self, line: Line) -> None:
        files = (line.kept,) if isinstance(line, RecordedInput) else line.files
        if any("\0" in kept.path for kept in files):
            return  # no file has such a name: the line is damaged
        if isinstance(line, RecordedInput):
            self.inputs[line.kept.path] = line
        else:
            self.outputs[line.path] = line

    def known_inputs(self) -> dict[Fingerprint, str]:
        """Return the digests of the input files that have not changed, by their fingerprints of now."""
        found = {}
        for line in self.inputs.values():
            with contextlib.suppress(OSError, InputError):
                file = InputFile(line.kept.path)
                if line.kept.is_still(os.stat(file.path)):
                    found[file.fingerprint] = line.kept.digest
        return found

    def add(self, lines: Iterable[Line]) -> None:
        """Remember *lines*.

        Raises:
            HostError: the record cannot be written.
        """
        text = b""
        for line in lines:
            known = (
                self.inputs.get(line.kept.path) if isinstance(line, RecordedInput) else self.outputs.get(line.path)
            )
            if line != known:
                with contextlib.suppress(UnicodeEncodeError):  # a name that is not UTF-8 is not remembered
                    text += _encode(line) + b"\n"
                    self._take(line)
                    self._lines += 1
        if not text:
            return
        try:
            with self._path.open("ab") as file:
                file.write((b"\n" if file.tell() else b"") + text)
        except OSError as error:
            raise HostError(f"cannot be written: {os.strerror(error.errno or 0)}", where=self._path) from None

    def tidy(self) -> None:
        """Write it anew if more than half of it counts no more."""
        lines: list[Line] = [*self.inputs.values(), *self.outputs.values()]
        if self._lines < 2 * len(lines) + 1000:
            return
        with contextlib.suppress(OSError):
            draft = self._directory / f"{NAME}.{os.getpid()}"
            draft.write_bytes(b"".join(_encode(line) + b"\n" for line in lines))
            draft.replace(self._path)
