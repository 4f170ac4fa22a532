from dataclasses import dataclass, field, fields, replace

import pytest

from gatewayd.core.record import record


@record
class Plain:
    """Two fields that count, one that is secret, one that is not compared."""

    name: str
    number: float = 0.0
    secret: bytes = field(default=b"", repr=False)
    seen: list[int] = field(default_factory=list, compare=False)


@record
class Single:
    """One field: its value alone would be equal to another record's."""

    name: str


@record
class Other:
    """As Single."""

    name: str


@record
class Empty:
    """No field."""


@record
class Wide(Plain):
    """Inherits fields."""

    more: tuple[int, ...] = ()


@record
class Own:
    """Has methods of its own."""

    name: str

    def __repr__(self) -> str:
        return "own"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own)

    def __hash__(self) -> int:
        return 7


def test_records_are_equal_by_the_fields_that_are_compared() -> None:
    assert Plain("a", 1, b"x", [1]) == Plain("a", 1.0, b"x", [2])
    assert Plain("a", 1, b"x") != Plain("a", 1, b"y")
    assert Wide("a", more=(1,)) != Wide("a", more=(2,))
    assert Empty() == Empty()


def test_records_of_other_kinds_are_other_records() -> None:
    kinds: list[object] = [Single("a"), Other("a"), "a", Plain("a"), Wide("a"), Empty()]
    assert all((one == other) is (one is other) for one in kinds for other in kinds)
    assert len({*kinds, Single("a"), Plain("a")}) == len(kinds)


def test_what_is_equal_hashes_alike() -> None:
    assert hash(Plain("a", 1, seen=[1])) == hash(Plain("a", 1.0))
    assert hash(Empty()) == hash(Empty())


def test_a_record_shows_itself_without_its_secrets() -> None:
    assert repr(Plain("a", 1.5, b"secret")) == "Plain(name='a', number=1.5, seen=[])"
    assert repr(Wide("a", more=(1,))) == "Wide(name='a', number=0.0, seen=[], more=(1,))"
    assert repr(Empty()) == "Empty()"


def test_methods_of_its_own_stay() -> None:
    assert (repr(Own("a")), Own("a") == Own("b"), hash(Own("a"))) == ("own", True, 7)


def test_it_is_a_dataclass_with_slots() -> None:
    assert [each.name for each in fields(Wide)] == ["name", "number", "secret", "seen", "more"]
    assert replace(Plain("a"), number=2.0) == Plain("a", 2.0)
    match Plain("a", 3.0):
        case Plain(name, number):
            assert (name, number) == ("a", 3.0)
    with pytest.raises(TypeError):
        vars(Plain("a"))


@dataclass(frozen=True, slots=True)
class Usual:
    """What the standard library makes of it."""

    name: str
    number: float = 0.0


def test_it_shows_itself_as_a_usual_one_does() -> None:
    shown = repr(Usual("a", 2)).removeprefix("Usual")
    assert repr(Plain("a", 2)).startswith(f"Plain{shown[:-1]}")
