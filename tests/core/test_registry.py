import pytest

from gatewayd.core.errors import Conflict, UnknownModel
from gatewayd.core.model import Signature, Version
from gatewayd.core.names import STABLE, Alias, ModelName, parse_model_ref
from gatewayd.core.registry import Registry

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
