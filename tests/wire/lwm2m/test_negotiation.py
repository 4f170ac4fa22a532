"""Which formats are tried with one device, as a scripted device answers."""

from collections.abc import Callable

import pytest

from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.negotiation import Negotiation, Use, format_answered, negotiation_of, renewed, use_of
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.paths import ROOT, Path
from gatewayd.wire.lwm2m.registration import parse_registration

CONTENT, NOT_ACCEPTABLE, UNSUPPORTED, ERROR, NOT_FOUND = (2, 5), (4, 6), (4, 15), (5, 0), (4, 4)
Answers = Callable[[Format | None], tuple[int, int]]


def of(version: str, ct: str = "") -> Negotiation:
    root = f'</>;rt="oma.lwm2m";ct="{ct}",' if ct else ""
    return negotiation_of(parse_registration([f"lwm2m={version}", "ep=a"], f"{root}</3/0>".encode()))


def transact(
    known: Negotiation, use: Use, answers: Answers
) -> tuple[list[Format | None], Negotiation, tuple[int, int]]:
    """Do what a link does: try until an answer does not mean "not in this format"."""
    tried: list[Format | None] = []
    code = (0, 0)
    for format_ in known.candidates(use):
        tried.append(format_)
        code = answers(format_)
        if code == CONTENT:
            return tried, known.worked(use, format_), code
        goes_on = known.goes_on(use, format_, code)
        known = known.failed(use, format_, code)
        if not goes_on:
            break
    return tried, known, code


def only(*spoken: Format | None, refusal: tuple[int, int] = NOT_ACCEPTABLE) -> Answers:
    return lambda format_: CONTENT if format_ in spoken else refusal


def test_a_device_that_speaks_only_senml_json_and_answers_5_00_is_found_and_remembered() -> None:
    tried, known, code = transact(of("1.1"), Use.READ_TREE, only(Format.SENML_JSON, refusal=ERROR))
    assert (tried, code) == ([Format.SENML_CBOR, Format.SENML_JSON], CONTENT)
    assert transact(known, Use.READ_TREE, only(Format.SENML_JSON, refusal=ERROR))[0] == [Format.SENML_JSON]


def test_its_ct_saves_the_search() -> None:
    assert transact(of("1.0", "110"), Use.READ_TREE, only(Format.SENML_JSON, refusal=ERROR))[0] == [Format.SENML_JSON]
    assert transact(of("1.1", "11542 0"), Use.READ_VALUE, only(Format.TLV))[0] == [Format.TLV]


def test_the_version_says_what_is_likely() -> None:
    assert of("1.0").candidates(Use.READ_TREE)[0] is Format.TLV
    assert of("1.1").candidates(Use.READ_TREE)[0] is Format.SENML_CBOR
    assert Format.LWM2M_CBOR in of("1.2").candidates(Use.READ_TREE)[:3]
    # Of several that it speaks the compact one is taken.
    assert of("1.2", "110 11543 112 11542").candidates(Use.READ_TREE)[0] is Format.SENML_CBOR


@pytest.mark.parametrize("spoken", [*(each for each in Format if each not in {Format.LINKS, Format.CBOR}), None])
@pytest.mark.parametrize("refusal", [NOT_ACCEPTABLE, UNSUPPORTED, ERROR])
@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_whatever_it_speaks_is_found(spoken: Format | None, refusal: tuple[int, int], version: str) -> None:
    for use in Use:
        if not use.is_read and spoken is None:
            continue
        tried, _, code = transact(of(version), use, only(spoken, refusal=refusal))
        trees = use in {Use.READ_TREE, Use.WRITE_TREE}
        values = use in {Use.READ_VALUE, Use.WRITE_VALUE}
        is_possible = not (trees and spoken in {Format.TEXT, Format.OPAQUE}) and not (
            values and spoken is Format.OPAQUE
        )
        assert (code == CONTENT) is is_possible
        assert len(tried) == len(set(tried)) <= 8


def test_5_00_after_a_success_is_the_devices_trouble() -> None:
    _, known, _ = transact(of("1.1"), Use.READ_TREE, only(Format.SENML_CBOR))
    tried, after, code = transact(known, Use.READ_TREE, lambda _: ERROR)
    assert (tried, code, after) == ([Format.SENML_CBOR], ERROR, known)


def test_4_06_after_a_success_starts_the_search_again() -> None:
    # Its firmware was changed behind the same registration.
    _, known, _ = transact(of("1.1"), Use.READ_TREE, only(Format.SENML_CBOR))
    tried, known, code = transact(known, Use.READ_TREE, only(Format.TLV))
    assert (code, tried[-1]) == (CONTENT, Format.TLV)
    assert known.candidates(Use.READ_TREE)[0] is Format.TLV


def test_another_error_says_nothing_of_formats() -> None:
    tried, known, code = transact(of("1.1"), Use.READ_TREE, lambda _: NOT_FOUND)
    assert (len(tried), code) == (1, NOT_FOUND)
    assert known == of("1.1")


def test_reading_and_writing_are_remembered_apart() -> None:
    _, known, _ = transact(of("1.1"), Use.READ_TREE, only(Format.SENML_JSON))
    _, known, _ = transact(known, Use.WRITE_TREE, only(Format.TLV, refusal=UNSUPPORTED))
    assert known.candidates(Use.READ_TREE)[0] is Format.SENML_JSON
    assert known.candidates(Use.WRITE_TREE)[0] is Format.TLV


def test_what_was_learned_outlives_a_new_registration_that_says_the_same() -> None:
    body = b"</3/0>"
    registration = parse_registration(["ep=a", "lwm2m=1.1"], body)
    known = negotiation_of(registration).worked(Use.READ_TREE, Format.JSON)
    assert renewed(known, registration) is known
    other = parse_registration(["ep=a", "lwm2m=1.1"], b"</>;ct=110," + body)
    assert renewed(known, other).candidates(Use.READ_TREE)[0] is Format.SENML_JSON


@pytest.mark.parametrize(
    ("path", "read", "write"),
    [
        (Path(3, 0), Use.READ_TREE, Use.WRITE_TREE),
        (ROOT, Use.READ_TREE, Use.WRITE_TREE),
        (Path(3, 0, 6), Use.READ_TREE, Use.WRITE_TREE),
        (Path(3, 0, 6, 0), Use.READ_VALUE, Use.WRITE_VALUE),
        (Path(3, 0, 9), Use.READ_VALUE, Use.WRITE_VALUE),
        (Path(9, 0, 2), Use.READ_BYTES, Use.WRITE_BYTES),
        (Path(9, 0, 3), Use.READ_VALUE, Use.WRITE_VALUE),
        (Path(33, 0, 1), Use.READ_VALUE, Use.WRITE_VALUE),
    ],
)
def test_what_a_path_needs(path: Path, read: Use, write: Use) -> None:
    assert use_of(path, STANDARD, is_read=True) is read
    assert use_of(path, STANDARD, is_read=False) is write


@pytest.mark.parametrize(
    ("asked", "answered", "path", "found"),
    [
        (Format.TLV, Format.TEXT, Path(3, 0, 9), Format.TEXT),  # it ignored the Accept option
        (Format.TLV, None, Path(3, 0), Format.TLV),
        (Format.OPAQUE, None, Path(26242, 0, 6), Format.OPAQUE),
        (None, None, Path(3, 0, 9), Format.TEXT),
        (None, None, Path(3, 0), None),
    ],
)
def test_the_format_of_an_answer(
    asked: Format | None, answered: Format | None, path: Path, found: Format | None
) -> None:
    assert format_answered(asked, answered, path) == found
