"""Our quicker ``dataclass`` makes what the standard library's makes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import field

import pytest

from rumpbundle.dataclass import dataclass

OPTIONS = (
    {},
    {"frozen": True},
    {"slots": True},
    {"eq": False},
    {"frozen": True, "eq": False},
    {"frozen": True, "slots": True, "kw_only": True},
)


def made(decorator, options):
    @decorator(**options)
    class Value:
        a: int
        b: list[int] = field(default_factory=list)
        secret: str = field(default="x", repr=False)
        ignored: int = field(default=0, compare=False)

    return Value


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_does_what_the_original_does(options):
    ours, theirs = made(dataclass, options), made(dataclasses.dataclass, options)
    assert repr(ours(a=1, b=[2])) == repr(theirs(a=1, b=[2]))
    for one, other in (
        ({"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 2}),
        ({"a": 1, "secret": "y"}, {"a": 1}),
        ({"a": 1, "ignored": 1}, {"a": 1}),
    ):
        assert (ours(**one) == ours(**other)) is (theirs(**one) == theirs(**other))
    assert ours(a=1) != theirs(a=1)
    assert ours(a=1) != (1, [], "x", 0)
    assert (ours.__hash__ is None) is (theirs.__hash__ is None)
    assert [each.name for each in dataclasses.fields(ours)] == [each.name for each in dataclasses.fields(theirs)]
    value = ours(a=1)
    assert dataclasses.replace(value, a=2).a == 2
    assert copy.copy(value).a == 1
    if options.get("frozen"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.a = 2


def test_it_writes_no_documentation_from_the_signature(monkeypatch):
    monkeypatch.setattr("inspect.signature", None)
    assert made(dataclass, {}).__doc__ == "Value"


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: tuple[int, ...] = ()


@dataclass
class Own:
    x: int

    def __repr__(self) -> str:
        return "own"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 7


class Nearer(Point):
    """Of another class, so never equal."""


def test_values_are_keys_and_travel():
    assert {Point(1): "one"}[Point(1)] == "one"
    assert hash(Point(1, (2,))) == hash(Point(1, (2,)))
    assert pickle.loads(pickle.dumps(Point(1, (2,)))) == Point(1, (2,))
    assert Point(1) != Nearer(1)
    assert repr(Nearer(1)) == "Nearer(x=1, y=())"


def test_methods_of_the_class_stay():
    assert (repr(Own(1)), Own(1) == Own(2), hash(Own(1))) == ("own", True, 7)


def test_how_it_is_made_is_compiled_when_first_wanted():
    of = made(dataclass, {"frozen": True, "slots": True})
    assert not inspect.isfunction(vars(of)["__init__"])
    assert of(1).b == []
    assert inspect.isfunction(vars(of)["__init__"])
    assert list(inspect.signature(made(dataclass, {})).parameters) == ["a", "b", "secret", "ignored"]


def test_a_heir_may_come_first():
    @dataclass(frozen=True, slots=True)
    class Base:
        x: int

    class Heir(Base):
        def __init__(self, x: int) -> None:
            super().__init__(x + 1)

    @dataclass(frozen=True, slots=True)
    class Longer(Base):
        y: int = 2

    assert (Heir(1).x, Longer(3), Longer(3).y) == (2, Longer(3, 2), 2)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Base()
