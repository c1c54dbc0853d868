"""What fuzzing found worth keeping (tests/fuzz/run.py): none of it may end in anything but our own errors."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fuzz import targets

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_corpus_is_survived(name):
    inputs = targets.unpack((CORPUS / f"{name}.hex").read_text())
    assert len(inputs) >= len(targets.STARTS[name])
    for data in inputs:
        start = time.monotonic()
        targets.TARGETS[name](data)
        # No benchmark: what would hang, or read forever, is to fail here and not stop the suite.
        assert time.monotonic() - start < 30, data.hex()


def test_the_orders_of_an_input_are_carried_out():
    seed = bytes(1024) + b"abcdefgh" * 64 + bytes(512)
    assert targets.changed(seed, b"") == seed
    assert targets.changed(seed, b"\x01\x00\x00\x02XY")[1024:1032] == b"abXYefgh"
    assert len(targets.changed(seed, b"\xf0\x00\x00\x10")) == 1024 + 16


def test_a_corpus_is_text_and_comes_back():
    inputs = [b"", b"\x00\xff", b"ab"]
    assert targets.unpack(targets.pack(inputs)) == sorted(inputs, key=lambda each: (len(each), each))
    assert targets.limited([b"aaaa", b"b", b"cc"], 3) == [b"b", b"cc"]
