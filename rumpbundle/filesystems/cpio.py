"""A tree of files as a newc cpio archive: what a Linux kernel unpacks into its root file system before init runs.

Source: Documentation/driver-api/early-userspace/buffer-format.rst. Archives may follow each other, each on a multiple
of four bytes, and later ones add to earlier ones. Contents stay in their files.
"""

from __future__ import annotations

from collections import Counter
from itertools import count

from rumpbundle.disk.content import Content, Literal, Source
from rumpbundle.disk.tree import Directory, File, Node, Symlink, name_bytes, walk
from rumpbundle.errors import InputError

MAX_NAME = 4095
"""Bytes the kernel takes of a name (PATH_MAX with its NUL); it skips longer ones in silence."""
MAX_FILE = (1 << 32) - 1
_REGULAR, _DIRECTORY, _SYMLINK = 0o100000, 0o040000, 0o120000


def archive(root: Directory, *, mount: str, epoch: int) -> Content:
    """Return *root* as an archive that unpacks to the directory *mount*, which it makes.

    Everything belongs to root and is dated *epoch*; hard links within the tree are links again.

    Raises:
        InputError: a file of 4 GiB or more, or a path longer than 4095 bytes.
    """
    writer = _Writer(epoch)
    parts = mount.strip("/").split("/") if mount != "/" else []
    for depth in range(1, len(parts)):
        writer.add("/".join(parts[:depth]), Directory(parts[depth - 1]))
    top = "/".join(parts)
    if top:
        writer.add(top, root)
    nodes = list(walk(root, top))
    writer.left.update(id(node.content) for _, node in nodes if isinstance(node, File))
    for path, node in nodes:
        writer.add(path.lstrip("/"), node)
    return writer.finished()


class _Writer:
    def __init__(self, epoch: int) -> None:
        self.left: Counter[int] = Counter()
        """How many names of each content are still to come."""
        self._epoch = min(epoch, MAX_FILE)
        self._numbers = count(1)
        self._linked: dict[int, tuple[int, int]] = {}
        self._sources: list[Source] = []
        self._pending = bytearray()
        self._length = 0

    def add(self, path: str, node: Node) -> None:
        match node:
            case Directory():
                self._entry(path, next(self._numbers), _DIRECTORY | node.mode, 2, Content(()))
            case Symlink():
                target = name_bytes(node.target)
                if len(target) > MAX_NAME:
                    raise InputError(f"link target is longer than {MAX_NAME} bytes", where=f"/{path}")
                self._entry(path, next(self._numbers), _SYMLINK | 0o777, 1, Content.of_bytes(target))
            case File():
                if node.content.size > MAX_FILE:
                    raise InputError(
                        "a file of 4 GiB or more cannot stand in an initrd",
                        where=f"/{path}",
                        hint="give the directory as --volume",
                    )
                key = id(node.content)
                number, links = self._linked.setdefault(key, (next(self._numbers), self.left[key]))
                self.left[key] -= 1
                # The bytes come with the last name of a file, as the kernel and cpio expect.
                self._entry(
                    path, number, _REGULAR | node.mode, links, Content(()) if self.left[key] else node.content
                )

    def _entry(self, path: str, number: int, mode: int, links: int, content: Content) -> None:
        name = name_bytes(path)
        if len(name) > MAX_NAME:
            raise InputError(f"path is longer than {MAX_NAME} bytes", where=f"/{path}")
        fields = (number, mode, 0, 0, links, self._epoch, content.size, 0, 0, 0, 0, len(name) + 1, 0)
        self._put(b"070701" + b"".join(b"%08x" % field for field in fields) + name + b"\0")
        for source in content.sources:
            if isinstance(source, Literal):
                self._pending += source.data
            else:
                self._flush()
                self._sources.append(source)
        self._length += content.size
        self._put(b"")

    def _put(self, data: bytes) -> None:
        """Append *data* and what it takes to the next multiple of four bytes of the archive."""
        self._length += len(data)
        padding = -self._length % 4
        self._pending += data + bytes(padding)
        self._length += padding

    def _flush(self) -> None:
        if self._pending:
            self._sources.append(Literal(bytes(self._pending)))
            self._pending = bytearray()

    def finished(self) -> Content:
        self._entry("TRAILER!!!", 0, 0, 1, Content(()))
        self._flush()
        return Content(tuple(self._sources))
