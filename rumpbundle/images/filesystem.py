"""What every reader of a file system gives: its entries, and where their bytes stand.

An image is hostile: a reader visits a directory once, nests at most ``MAX_DEPTH`` deep, checks what it is told
against the medium, and pays for every step from the listing's :class:`~rumpbundle.images.budget.Budget`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.bounds import MAX_DIRECTORY
from rumpbundle.disk.content import CHUNK
from rumpbundle.disk.tree import MAX_DEPTH
from rumpbundle.errors import ImageError
from rumpbundle.images.budget import Budget, TooMuchError
from rumpbundle.images.disk import Fact
from rumpbundle.images.medium import Medium
from rumpbundle.images.problem import Problem

MAX_PATH = 1 << 16
"""Characters of one path; names of 255 bytes 128 deep stay below it."""


@dataclass(frozen=True, slots=True)
class Span:
    """*length* bytes at *offset* of the file system; an offset of None is a hole, which reads as zeros."""

    offset: int | None
    length: int


Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, directory, symbolic link or (``special``) device."""

    path: str
    """Absolute. Bytes that are no UTF-8 stand as surrogate escapes."""
    kind: OneOf["file", "directory", "symlink", "special"]
    size: int = 0
    mode: int = 0
    """The twelve permission bits; 0 where the file system has none."""
    target: str = ""
    """Of a symbolic link."""
    place: Spans | Callable[[], Spans] = ()
    """Its spans, or what finds them: to list a file takes no look at its block map."""
    packed: bool = False
    """Whether the spans hold its bytes compressed."""
    unreadable: str = ""
    """Why its bytes cannot be read, though it is there: ``is encrypted``."""

    @property
    def spans(self) -> Spans:
        """Where a file's bytes stand, in order.

        Raises:
            ImageError: what says so is damaged.
        """
        if callable(self.place):
            object.__setattr__(self, "place", self.place())
        assert isinstance(self.place, tuple)
        return self.place


class FileSystem:
    """A file system on a medium, at its byte 0."""

    kind: ClassVar[str]

    def __init__(self, medium: Medium, size: int, label: str) -> None:
        """*size*: bytes it says it takes; the medium may have fewer."""
        self.medium = medium
        there = f"it is cut off: it claims {size} bytes, and there are {medium.size}"
        self.cut = there if size > medium.size else ""
        """What is wrong if the medium ends before it does: an image that is not all there."""
        self.size = min(size, medium.size)
        self.label = label
        self.directories: list[Span] = []
        """Where the directories stand that have been read so far."""
        self.budget = Budget()
        self.funds: list[Budget] = []
        """The budgets of all looks at it for which nobody else pays."""
        self._entered = 0
        """Bytes of all directories so far."""

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What it says about itself, for people."""
        return {}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What whoever reads its files should know: that a journal waits, that another file system names more."""
        return ()

    @property
    def permissions(self) -> bool:
        """Whether its files have permission bits."""
        return True

    @property
    def structures(self) -> Spans:
        """Where its own structures stand, as far as they are known without reading all of it."""
        return ()

    def entries(self, within: str = "/", budget: Budget | None = None) -> Iterator[Entry]:
        """Yield everything in it, parents before children; of directories that *within* is not in, only themselves.

        Raises:
            ImageError: it is damaged, or lists more than the *budget* allows.
        """
        return (entry for entry, _ in self.walk(within, budget or self.fund()))

    def fund(self) -> Budget:
        """Return a budget for one more look at it."""
        self.funds.append(Budget())
        return self.funds[-1]

    def walk(self, within: str, budget: Budget) -> Iterator[tuple[Entry, int | None]]:
        """Do what :meth:`entries` does; of directories that are entered, give their number, too."""
        self.budget = budget
        self.directories = []
        self._entered = 0
        wanted = within.rstrip("/")
        root = self._root()
        seen = {root}
        stack = [("", root, 0)]
        while stack:
            path, directory, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise TooMuchError(f"{self.kind}: directories are nested deeper than {MAX_DEPTH}")
            below = []
            for entry, inside in self._directory(path, directory):
                if len(entry.path) > MAX_PATH:
                    raise ImageError("a path in the file system has no end")
                self.budget.entry(entry.path, entry.target)
                yield entry, inside
                if inside is None or not _on_the_way(entry.path, wanted):
                    continue
                if inside in seen:
                    raise ImageError(f"{self.kind}: directory {entry.path} is in two places, or in itself")
                seen.add(inside)
                below.append((entry.path, inside, depth + 1))
            stack += reversed(below)

    def _root(self) -> int:
        """Return the number of the root directory: an inode, a cluster, a block."""
        raise NotImplementedError

    def _directory(self, path: str, number: int) -> Iterator[tuple[Entry, int | None]]:
        """Yield what is in the directory *number*, called *path*; of directories to enter, their number, too."""
        raise NotImplementedError

    def _enter(self, spans: Spans, path: str) -> None:
        """Note that the directory *path* stands at *spans*.

        Raises:
            ImageError: there are more bytes of directories than the medium or the budget has.
        """
        length = sum(span.length for span in spans if span.offset is not None)
        self._entered += length
        self._check_directory(path, length)
        if self._entered > self.medium.size:
            raise ImageError(f"{self.kind}: directory {path or '/'} shares its bytes with others")
        self.budget.directory(length)
        self.directories.extend(spans)

    def _check_directory(self, path: str, length: int, room: int | None = None) -> None:
        """Raise if the directory *path* of *length* bytes is too large to be one; *room* is what is kept for it.

        Raises:
            ImageError: it has more bytes than that, or than the medium.
            TooMuchError: it has more than are looked at.
        """
        told = f"{self.kind}: directory {path or '/'} has {length} bytes"
        most = self.medium.size if room is None else min(self.medium.size, max(room, MAX_DIRECTORY))
        if length > most:
            raise ImageError(f"{told}, and there is room for {most}")
        if length > MAX_DIRECTORY:
            raise TooMuchError(f"{told}, more than is sensible")

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """Yield the bytes of a file, at most ``CHUNK`` at a time.

        Raises:
            ImageError: its spans leave the medium, or cannot be made sense of.
        """
        if entry.unreadable:
            raise ImageError(f"{entry.path} {entry.unreadable}")
        if entry.packed:
            yield from self._unpacked(entry)
            return
        left = entry.size
        for span in entry.spans:
            length = min(span.length, left)
            left -= length
            for at in range(0, length, CHUNK):
                count = min(CHUNK, length - at)
                yield bytes(count) if span.offset is None else self.medium.read(span.offset + at, count)
        if left:
            raise ImageError(f"{entry.path}: {left} of its {entry.size} bytes have no place on the disk")

    def _unpacked(self, entry: Entry) -> Iterator[bytes]:
        """Yield the bytes of a file that stands compressed."""
        raise NotImplementedError

    def problems(self) -> Iterator[Problem]:
        """Yield all that is wrong with it that can be told from itself, with offsets of the file system.

        Readers add what their format lets them check; files that cannot be listed or placed are told for all.
        """
        try:
            for entry in self.entries():
                try:
                    self._look_at(entry)
                except TooMuchError:
                    raise
                except ImageError as error:
                    what = error.problem.removeprefix(f"{entry.path}: ")
                    yield Problem(where=entry.path, offset=None, what=what, consequence="it cannot be read")
        except TooMuchError as error:
            yield not_all("/", error)
        except ImageError as error:
            yield Problem(where="/", offset=None, what=error.problem, consequence="not all files can be listed")

    def _look_at(self, entry: Entry) -> None:
        """Raise :class:`ImageError` if *entry* cannot be read, as far as the file system itself tells."""
        _ = entry.spans

    def find(self, path: str) -> Entry | None:
        """Return the entry at the absolute *path*, or None."""
        wanted = "/" + path.strip("/")
        return next((entry for entry in self.entries(wanted) if entry.path == wanted), None)


def not_all(where: str, error: TooMuchError) -> Problem:
    """Return what to say of a look at *where* that *error* has ended."""
    ends = "what is wrong with the others was not looked at"
    return Problem(where=where, offset=None, what=error.problem, consequence=ends, severity="remark")


def _on_the_way(path: str, wanted: str) -> bool:
    """Return whether *path* is above, at or below *wanted*."""
    short, long = (path, wanted) if len(path) < len(wanted) else (wanted, path)
    return long == short or long.startswith(f"{short}/")
