"""Read tar: v7, ustar, GNU and PAX headers, long names, and the sparse files of all of them.

Tar is read here, not with :mod:`tarfile`: an image is hostile, and this much of it is bounded. The formats are told
in tar(5) and in GNU tar's manual, "Storing Sparse Files".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, replace

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError, one_line
from rumpbundle.images.medium import Medium, Patchwork, Piece, Window

BLOCK = 512
_MOST_MEMBERS = 10_000
_MOST_HEADERS = 1 << 20
"""Bytes of a long name or of a PAX header."""
_MOST_PIECES = 1 << 20
"""Parts of all sparse files: it takes 8 bytes of the archive, and 200 of memory, to name one."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive; *offset* and *size* in bytes. *pieces* are those of a sparse file."""

    name: str
    offset: int
    size: int
    pieces: tuple[tuple[int, int], ...] | None = field(default=None, repr=False)
    """Offset in the file and length of each, laid end to end from *offset* of the archive."""

    def within(self, archive: Medium) -> Medium:
        """Return the file.

        Raises:
            ImageError: it is not all there, or its map is damaged.
        """
        if self.pieces is None:
            return Window(archive, self.offset, self.size, one_line(self.name))
        start = self.offset
        pieces = []
        for offset, length in self.pieces:
            pieces.append(Piece(offset, length, archive, start))
            start += length
        return Patchwork(self.size, pieces)


def is_tar(head: bytes) -> bool:
    """Return whether *head*, the first block of a file, begins an archive: its sum is right, as in v7 already."""
    if len(head) < BLOCK or not head[0]:
        return False
    return head[257:262] == b"ustar" or _sum_is_right(head)


def _sum_is_right(head: bytes) -> bool:
    field = head[148:156].strip(b" \0")
    if not field or field.strip(b"01234567"):
        return False
    without = head[:148] + 8 * b" " + head[156:]
    # Some old programs sum bytes that have a sign.
    return sum(without) - int(field, 8) in (0, 256 * sum(byte > 127 for byte in without))


def members(medium: Medium, symlinks: set[str] | None = None) -> Iterator[Member]:
    """Yield the regular files of a tar archive, those too that are hard links to one before.

    The names of symbolic links are added to *symlinks*.

    Raises:
        ImageError: a header is damaged, or there are too many.
    """
    offset = 0
    everywhere: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    seen: dict[str, Member] = {}
    pieces = 0
    for _ in range(_MOST_MEMBERS):
        if offset + BLOCK > medium.size:
            return
        head = medium.read(offset, BLOCK)
        if head == bytes(BLOCK):
            return
        if not _sum_is_right(head):
            raise ImageError(f"tar: the header at {offset} is damaged")
        size = _number(head[124:136])
        start = offset + BLOCK
        kind = head[156:157]
        if kind in (b"L", b"K", b"x", b"g"):
            data = _header_data(medium, start, size)
            if kind == b"L":
                own[b"path"] = data.rstrip(b"\0")
            elif kind == b"K":
                own[b"linkpath"] = data.rstrip(b"\0")
            else:
                (own if kind == b"x" else everywhere).update(_pax(data))
        else:
            words = everywhere | own
            size = _decimal(words.get(b"size", b"%d" % size))
            if kind in (b"0", b"\0", b"7", b"S") and not head[:100].split(b"\0")[0].endswith(b"/"):
                found, extra = _member(medium, head, words, start, size)
                pieces += len(found.pieces or ())
                if pieces > _MOST_PIECES:
                    raise ImageError("tar: sparse files of too many parts")
                seen[found.name] = found
                yield found
                start += extra
            elif kind in _WITHOUT_DATA and size and _is_header(medium, start):
                size = 0  # that of what a link leads to, or what a directory may hold
            if kind in _LINKS:
                name, target = _names(head, words)
                if kind == b"2" and symlinks is not None:
                    symlinks.add(name)
                if kind == b"1" and target in seen:
                    yield replace(seen[target], name=name)
            own = {}
        offset = start + -(-size // BLOCK) * BLOCK
    raise ImageError(f"tar: more than {_MOST_MEMBERS} members")


_LINKS = (b"1", b"2")
"""Types of a hard link and of a symbolic one."""
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Types of what holds nothing, as a rule: a hard link may come with the file's data (POSIX, pax)."""
_WORDS = (b"path", b"linkpath", b"size", b"GNU.sparse.")
"""How the words of a PAX header begin that are read: those for all files are kept, and may be megabytes of others."""


def _is_header(medium: Medium, offset: int) -> bool:
    """Whether a header, or the end of the archive, stands at *offset*."""
    head = medium.read(offset, min(BLOCK, max(medium.size - offset, 0)))
    return len(head) < BLOCK or head == bytes(BLOCK) or _sum_is_right(head)


def _names(head: bytes, words: Mapping[bytes, bytes]) -> tuple[str, str]:
    """Return the name of a link, and what it leads to."""
    name = words.get(b"path") or _name(head)
    target = words.get(b"linkpath") or head[157:257].split(b"\0")[0]
    return name.decode("utf-8", "replace"), target.decode("utf-8", "replace")


def _member(medium: Medium, head: bytes, words: Mapping[bytes, bytes], start: int, size: int) -> tuple[Member, int]:
    """Return the file with its data at *start*, and how many bytes of sparse headers stand before that data."""
    name = words.get(b"GNU.sparse.name") or words.get(b"path") or _name(head)
    text = name.decode("utf-8", "replace")
    if head[156:157] == b"S":
        pieces, real, extra = _old_sparse(medium, head, start)
        return Member(text, start + extra, real, _checked(pieces, real, size)), extra
    if words.get(b"GNU.sparse.major") == b"1":
        real = _decimal(words.get(b"GNU.sparse.realsize", b""))
        pieces, used = _sparse_1_0(medium, start, size)
        return Member(text, start + used, real, _checked(pieces, real, size - used)), 0
    if b"GNU.sparse.map" in words:
        real = _decimal(words.get(b"GNU.sparse.size", b""))
        numbers = [_decimal(word) for word in words[b"GNU.sparse.map"].split(b",") if word]
        return Member(text, start, real, _checked(list(_pairs(numbers)), real, size)), 0
    return Member(text, start, size), 0


def _name(head: bytes) -> bytes:
    name, prefix = (part.split(b"\0")[0] for part in (head[:100], head[345:500]))
    # GNU's own format ("ustar  ") has other things where POSIX has a prefix.
    return b"/".join((prefix, name)) if prefix and head[257:263] == b"ustar\0" else name


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: binary; only positive numbers make sense here
        return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    text = field.split(b"\0")[0].strip(b" ")
    if text.strip(b"01234567"):
        raise ImageError("tar: a field that holds a number holds something else")
    return int(text or b"0", 8)


def _decimal(text: bytes) -> int:
    if not text or len(text) > 20 or text.strip(b"0123456789"):
        raise ImageError("tar: a field that holds a number holds something else")
    return int(text)


def _header_data(medium: Medium, offset: int, size: int) -> bytes:
    if size > _MOST_HEADERS:
        raise ImageError(f"tar: a header of {size} bytes at {offset}")
    return medium.read(offset, size)


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Return the words of a PAX header; sparse version 0.0 repeats two of them, and becomes version 0.1."""
    found: dict[bytes, bytes] = {}
    numbers: list[bytes] = []
    at = 0
    while at < len(data) and data[at] != 0:
        blank = data.find(b" ", at, at + 12)
        length = _decimal(data[at:blank]) if blank > 0 else 0
        record = data[at : at + length]
        key, equals, value = record[blank + 1 - at :].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise ImageError("tar: a PAX header is damaged")
        value = value[:-1]
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            numbers.append(value)
        elif key.startswith(_WORDS):
            found[key] = value
        at += length
    return found | ({b"GNU.sparse.map": b",".join(numbers)} if numbers else {})


def _old_sparse(medium: Medium, head: bytes, start: int) -> tuple[list[tuple[int, int]], int, int]:
    """Return the map of a file in GNU's old format, its size, and the bytes of the headers that continue the map."""
    pieces = list(_entries(head[386:482], 4))
    more = head[482]
    extra = 0
    while more:
        block = medium.read(start + extra, BLOCK)
        extra += BLOCK
        pieces += _entries(block, 21)
        more = block[504]
        if len(pieces) > _MOST_PIECES:
            raise ImageError("tar: a sparse file of too many parts")
    return pieces, _number(head[483:495]), extra


def _entries(data: bytes, count: int) -> Iterator[tuple[int, int]]:
    for at in range(0, 24 * count, 24):
        if data[at] == 0:
            return
        yield _number(data[at : at + 12]), _number(data[at + 12 : at + 24])


def _sparse_1_0(medium: Medium, start: int, size: int) -> tuple[list[tuple[int, int]], int]:
    """Return the map at the head of a file's data, decimal numbers each on a line, and the bytes it takes."""
    numbers: list[int] = []
    wanted = 1
    used = 0
    rest = b""
    while len(numbers) < wanted:
        if used + BLOCK > size:
            raise ImageError("tar: the map of a sparse file is cut off")
        *lines, rest = (rest + medium.read(start + used, BLOCK)).split(b"\n")
        used += BLOCK
        for line in lines:
            if len(numbers) < wanted:
                numbers.append(_decimal(line))
                wanted = 1 + 2 * numbers[0]
        if wanted > 2 * _MOST_PIECES:
            raise ImageError("tar: a sparse file of too many parts")
    return list(_pairs(numbers[1:wanted])), used


def _pairs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    return zip(numbers[::2], numbers[1::2], strict=False)


def _checked(pieces: list[tuple[int, int]], real: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return *pieces* without empty ones; they have to be in order and to fill *size* bytes of the archive."""
    if sum(length for _, length in pieces) > size or len(pieces) > _MOST_PIECES:
        raise ImageError("tar: the map of a sparse file is damaged")
    end = 0
    for offset, length in pieces:
        if offset < end or offset + length > real:
            raise ImageError("tar: the map of a sparse file is damaged")
        end = offset + length
    return tuple(piece for piece in pieces if piece[1])
