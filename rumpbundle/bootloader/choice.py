"""The lines of ``grub.cfg`` that choose one of several configurations by what firmware says of the machine.

Each configuration is a script of its own, named by its key: GRUB opens one file, however many there are. What
firmware says is somebody's text. GRUB reads a variable's value as one word and never as a script; a kind stands
before it in the file's name, so ``../`` in it names a directory that there is not (``Key.stem``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from rumpbundle.bootloader.smbios import ANY, IDENTITIES
from rumpbundle.manifest import CONFIGS


def lookup(kinds: Collection[str], *, everything: bool = False) -> Iterator[str]:
    """Yield the lines that set ``$config`` to the script for this machine; keys are of these *kinds*.

    With *everything* they ask for identities of other kinds, too, for :func:`nothing` to tell.
    """
    yield "function look {"
    # A letter before each of them: a word such as ( or = would mean something to test.
    yield '  if [ "x$config" = x ]; then if [ "x$2" != x ]; then'
    yield f'    if [ -f "{CONFIGS}/$1:$2.cfg" ]; then config="$1:$2"; fi'
    yield "  fi; fi"
    yield "}"
    for name in IDENTITIES:
        wanted = [kind for kind in (name, ANY) if kind in kinds]
        if wanted or everything:
            # GRUB complains of an identity that a machine does not have, so nothing is asked in vain.
            yield 'if [ "x$config" = x ]; then'
            yield from _ask(name)
            yield from (f'  look {kind} "${name}"' for kind in wanted)
            yield "fi"


def _ask(name: str) -> Iterator[str]:
    """Yield the lines that set the variable *name* to what firmware says, if it says it."""
    identity = IDENTITIES[name]
    get = "--get-uuid" if name == "uuid" else "--get-string"
    command = f"smbios --type {identity.structure} {get} {identity.offset} --set {name}"
    if get == "--get-uuid" or name == "oem":
        # Of all OEM strings the last: their count is taken for the number of one.
        yield f"  {command}"
        return
    # Firmware numbers its strings; 0 is none.
    yield f"  if smbios --type {identity.structure} --get-byte {identity.offset} --set number; then"
    yield f'    if [ "$number" != 0 ]; then {command}; fi'
    yield "  fi"


START = f'source "{CONFIGS}/$config.cfg"'
"""The line that starts what :func:`lookup` found."""


def nothing() -> Iterator[str]:
    """Yield the lines that say that no configuration is for this machine."""
    said = "rumpbundle: no configuration in this image is for this machine, and it has no default. The machine is:"
    yield f"echo '{said}'"
    yield from (f'echo "  {name}:${name}"' for name in IDENTITIES)
