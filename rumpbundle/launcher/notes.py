"""What people should know before a guest runs: above all why they will see nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

from rumpbundle.kernels.unikernel import Family
from rumpbundle.launcher.backend import LaunchRequest

_SHOW = "it gets a display adapter, which is not shown here: add -- -display gtk"


def notes(request: LaunchRequest) -> Iterator[str]:
    """Yield what is worth saying of *request*, one line each."""
    if request.screen == "framebuffer":
        yield f"the kernel asks for a framebuffer; {_SHOW}"
    elif request.screen == "console":
        yield f"the kernel asks for a VGA text screen; {_SHOW}"
    elif request.screen == "text":
        yield f"the kernel writes to the VGA text screen and has no serial port; {_SHOW}"
    elif request.screen == "terminal" and "ttyS" not in request.cmdline:
        yield (
            "the kernel boots as Linux does, but is not Linux; most such kernels write to the screen alone, unless "
            f"they are told otherwise (memtest86+: --cmdline console=ttyS0); {_SHOW}"
        )
    if request.family is Family.LINUX and "ttyS" not in request.cmdline:
        yield "Linux speaks here only with console=ttyS0 on its command line: --cmdline console=ttyS0"
    if request.family is Family.RUMPRUN and request.further:
        yield (
            "nothing mounts these disks, unless the guest's configuration names them ($.blk); what is bundled with "
            "--data or --volume is mounted"
        )
    blocks = [device.name for device in request.devices or () if device.kind == "block"]
    if (missing := blocks[len(request.further) :]) and not request.args:
        yield (
            f"its manifest asks for block devices it will not find ({', '.join(missing)}): bundle it, then "
            "rumpbundle run IMAGE --boot qemu --volume DIR:/NAME for each, in its order; "
            "or add -- -drive if=virtio,format=raw,file=DISK"
        )
    if request.gdb is not None:
        yield f"the guest waits for a debugger: gdb -ex 'target remote 127.0.0.1:{request.gdb}'"
