"""How a disk that qemu-img wrote is made ours: every random or dated field is replaced, or the build fails.

A field that is not where a format's sealer expects it means a qemu-img we do not know: a guess would corrupt the
image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rumpbundle.disk.flat import disk_errors
from rumpbundle.errors import ImageError, ToolError


@contextlib.contextmanager
def sealing() -> Iterator[None]:
    """Turn what a reader or the disk says inside the block into the error of the tool or the machine it is."""
    with disk_errors():
        try:
            yield
        except ImageError as error:
            expect(False, error.problem)


def expect(condition: bool, what: str) -> None:
    """Raise :class:`ToolError` unless *condition* holds of what qemu-img wrote."""
    if not condition:
        raise ToolError(
            f"qemu-img wrote what rumpbundle cannot seal: {what}",
            hint="please report it with the output of qemu-img --version",
        )
