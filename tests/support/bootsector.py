"""Guests of 512 bytes: a boot sector that says something on COM1 and then ends in one of many ways."""

from __future__ import annotations

ORIGIN = 0x7C00

_SAY = bytes.fromhex(
    "fc 31c0 8ed8"  # cld; ds = 0
    "be 0000"  # mov si, the text (patched)
    "ac 84c0 74 12"  # next: lodsb; test al, al; jz end
    "88c4 ba fd03"  # mov ah, al; dx = line status register
    "ec a8 20 74 fb"  # wait until the transmitter is empty
    "88e0 ba f803 ee"  # out it goes
    "eb e9"  # jmp next
)
"""Prints the NUL-terminated text at ds:si; ``end`` is what follows."""

_NO_IDT = b"\x00" * 6

ENDINGS = {
    "success": bytes.fromhex("b010 e6f4"),
    "zero": bytes.fromhex("b000 e6f4"),
    "failure": bytes.fromhex("b003 e6f4"),
    "default port": bytes.fromhex("ba0105 b003 ee"),
    "hang": bytes.fromhex("ebfe"),
    "halt": bytes.fromhex("fa f4 ebfd"),
    "triple": bytes.fromhex("0f011e 0000 cc"),  # lidt [patched]; int3
    "flood": b"\xeb" + (-len(_SAY) - 2).to_bytes(1, "little", signed=True),
    "echo": bytes.fromhex("bafd03 ec a801 74f8 baf803 ec ee ebf1"),
    "panic": bytes.fromhex("b001 ba0505 ee ebfe"),  # pvpanic
}
"""What the machine code after the text does, by name."""


SSE = bytes.fromhex(
    "0f20c0 24fb 0c02 0f22c0"  # CR0.EM off, CR0.MP on
    "0f20e0 660d00060000 0f22e0"  # CR4.OSFXSR, CR4.OSXMMEXCPT
    "660fefc9 0f28c1"  # pxor xmm1, xmm1; movaps xmm0, xmm1
)
"""Turns SSE on and uses it."""


def bootsector(text: str, ending: str, *, first: bytes = b"") -> bytes:
    """Return a boot sector that runs the machine code *first*, says *text* and ends as *ending* says."""
    code = bytearray(first + _SAY + ENDINGS[ending])
    say = len(first)
    if ending == "triple":
        code[say + len(_SAY) + 3 : say + len(_SAY) + 5] = (ORIGIN + len(code)).to_bytes(2, "little")
        code += _NO_IDT
    code[say + 6 : say + 8] = (ORIGIN + len(code)).to_bytes(2, "little")
    code += text.encode() + b"\0"
    assert len(code) <= 510
    return bytes(code.ljust(510, b"\0")) + b"\x55\xaa"
