"""Results that a thread computes before they are wanted."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import count, islice

import pytest

from rumpbundle.host.ahead import ahead_map


def test_results_come_in_order_and_few_too_early():
    computed = []
    early = []

    def square(number: int) -> int:
        computed.append(number)
        return number * number

    with closing(ahead_map(square, range(50), 3)) as results:
        for index, result in enumerate(results):
            assert result == index * index
            early.append(len(computed) - index - 1)
    assert max(early) <= 3
    assert computed == list(range(50))


def test_a_failure_comes_after_what_was_computed_before_it():
    results = ahead_map(lambda number: 6 // (2 - number), range(5), 2)
    assert list(islice(results, 2)) == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("read", [0, 1, 20])
def test_whoever_stops_leaves_no_thread(read):
    before = threading.active_count()
    with closing(ahead_map(str, count(), 2)) as results:
        assert list(islice(results, read)) == [str(number) for number in range(read)]
    assert threading.active_count() == before


def test_without_threads_it_is_a_map(monkeypatch):
    def none_to_be_had(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_to_be_had)
    assert list(ahead_map(str, range(9), 2)) == [str(number) for number in range(9)]
