import pytest

from gatewayd.core.errors import Conflict, UnknownModel
from gatewayd.core.model import Signature, Version
from gatewayd.core.names import STABLE, Alias, ModelName, ModelRef, parse_model_ref
from gatewayd.core.registry import AliasMove, Registry, Retirement, place_at, place_before

KWS, VWW = ModelName("kws"), ModelName("vww")
CANARY = Alias("canary")


def version(model: ModelName, number: int) -> Version:
    return Version(model, number, Signature((), ()), (), created_at=1000.0 + number)


REGISTRY = Registry.of(
    [version(KWS, 1), version(KWS, 2), version(KWS, 3), version(VWW, 1)], {(KWS, STABLE): 2, (KWS, CANARY): 3}
)


@pytest.mark.parametrize(("ref", "number"), [("kws", 2), ("kws:stable", 2), ("kws:canary", 3), ("kws@1", 1)])
def test_resolves(ref: str, number: int) -> None:
    assert REGISTRY.resolve(parse_model_ref(ref)) == version(KWS, number)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("kwz", "no model 'kwz'; there are the models kws, vww"),
        ("kwz@1", "no model 'kwz'; there are the models kws, vww"),
        ("kws@9", "kws has no version 9; there are the versions 3, 2, 1"),
        (
            "kws:beta",
            (
                "kws has no alias 'beta'; there are the aliases canary → 3, stable → 2: move the alias 'beta' to a version, "
                "or name one, as in 'kws@3'"
            ),
        ),
        (
            "vww",
            (
                "vww has no alias 'stable'; there are no aliases: move the alias 'stable' to a version, "
                "or name one, as in 'vww@1'"
            ),
        ),
    ],
)
def test_unknown_says_what_exists(ref: str, message: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        REGISTRY.resolve(parse_model_ref(ref))
    assert str(caught.value) == message


def test_empty() -> None:
    with pytest.raises(UnknownModel, match="no model 'kws'; there are no models"):
        Registry().resolve(parse_model_ref("kws"))
    assert Registry().versions() == ()
    assert Registry().next_number(KWS) == 1


def test_long_lists_are_cut() -> None:
    many = Registry.of([version(ModelName(f"m{n:02}"), 1) for n in range(12)], {})
    with pytest.raises(UnknownModel, match=r"m06, m07 and 4 more$"):
        many.resolve(parse_model_ref("kws"))


def test_adding_leaves_the_old_value_alone() -> None:
    added = REGISTRY.with_version(version(VWW, 2)).with_alias(VWW, STABLE, 2)
    assert added.resolve(parse_model_ref("vww")).number == 2
    assert added.resolve(parse_model_ref("kws")).number == 2
    assert REGISTRY.next_number(VWW) == 2
    assert REGISTRY.aliases(VWW) == {}


def test_numbers_are_given_once() -> None:
    with pytest.raises(Conflict, match="kws@2 exists already: the next number is 4"):
        REGISTRY.with_version(version(KWS, 2))


def test_alias_moves_and_goes() -> None:
    moved = REGISTRY.with_alias(KWS, STABLE, 3)
    assert moved.aliases(KWS) == {STABLE: 3, CANARY: 3}
    assert moved.with_alias(KWS, CANARY, None).aliases(KWS) == {STABLE: 3}
    assert moved.with_alias(KWS, Alias("never"), None).aliases(KWS) == moved.aliases(KWS)


@pytest.mark.parametrize(("model", "number"), [(KWS, 9), (ModelName("kwz"), 1)])
def test_alias_needs_its_version(model: ModelName, number: int) -> None:
    with pytest.raises(UnknownModel):
        REGISTRY.with_alias(model, STABLE, number)


def test_versions_are_in_order() -> None:
    assert [str(each) for each in REGISTRY.versions()] == ["kws@1", "kws@2", "kws@3", "vww@1"]


def retirement(number: int) -> Retirement:
    return Retirement(KWS, number, 3000.0, "ann", "wrong labels")


def test_a_retired_version_can_be_read_but_gets_no_alias() -> None:
    registry = Registry.of([version(KWS, 1), version(KWS, 2)], {(KWS, STABLE): 1}, [retirement(2)])
    two = registry.resolve(ModelRef(KWS, version=2))
    assert registry.retirement(two) == retirement(2)
    with pytest.raises(Conflict, match="kws@2 was retired by ann: wrong labels; name another version"):
        registry.with_alias(KWS, STABLE, 2)
    back = registry.without_retirement(KWS, 2)
    assert back.retirement(two) is None
    assert back.with_alias(KWS, STABLE, 2).resolve(ModelRef(KWS)).number == 2


def test_what_an_alias_names_is_not_retired() -> None:
    registry = Registry.of([version(KWS, 1)], {(KWS, STABLE): 1})
    with pytest.raises(Conflict, match="kws@1 is what stable names: move or remove the alias first"):
        registry.with_retired(retirement(1))
    with pytest.raises(Conflict, match="is not retired"):
        registry.without_retirement(KWS, 1)


def test_a_number_stands_once() -> None:
    with pytest.raises(Conflict, match="kws@1 stands twice"):
        Registry.of([version(KWS, 1), version(KWS, 1)], {})


def moved(number: int | None, at: float, alias: Alias = STABLE) -> AliasMove:
    return AliasMove(KWS, alias, number, at, "ann", "")


MOVES = (moved(1, 10), moved(9, 15, Alias("canary")), moved(2, 20), moved(None, 30), moved(3, 40))


@pytest.mark.parametrize(
    ("at", "number"), [(9.9, "never"), (10, 1), (19.9, 1), (20, 2), (30, None), (35, None), (40, 3), (1e9, 3)]
)
def test_what_an_alias_meant_at_a_time(at: float, number: int | str | None) -> None:
    found = place_at(MOVES, STABLE, at)
    assert ("never" if found is None else found.version) == number


def test_a_clock_that_was_set_back_does_not_reorder_moves() -> None:
    found = place_at((moved(1, 100), moved(2, 50)), STABLE, 120)
    assert found is not None
    assert found.version == 2


@pytest.mark.parametrize(("moves", "before"), [((), None), (MOVES[:1], None), (MOVES[:3], 1), (MOVES, None)])
def test_where_an_alias_was_before(moves: tuple[AliasMove, ...], before: int | None) -> None:
    assert place_before(moves, STABLE) == before
