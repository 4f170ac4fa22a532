import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.core.names import ModelRef, parse_alias, parse_device_id, parse_digest, parse_model_name, parse_model_ref

HOSTILE = ["", " kws", "kws ", "kws\n", "a/b", "../x", "#", "+", "$share", "kws\0", "ümlaut", "a" * 64, "-kws", "_kws"]


@pytest.mark.parametrize("text", ["kws", "k", "0", "a-b_c", "a" * 63])
def test_good_names(text: str) -> None:
    assert parse_model_name(text) == text
    assert parse_alias(text) == text
    assert parse_device_id(text) == text


@pytest.mark.parametrize("text", [*HOSTILE, "KWS", "a.b"])
def test_bad_model_names(text: str) -> None:
    with pytest.raises(BadRequest, match="is no model name: it must match"):
        parse_model_name(text)
    with pytest.raises(BadRequest, match="is no alias"):
        parse_alias(text)


@pytest.mark.parametrize("text", ["Cam-7", "urn:imei:12", "node.local"])
def test_device_ids_may_be_endpoint_names(text: str) -> None:
    assert parse_device_id(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_bad_device_ids(text: str) -> None:
    with pytest.raises(BadRequest, match="is no device id"):
        parse_device_id(text)


def test_digests() -> None:
    assert parse_digest("ab" * 32) == "ab" * 32
    for text in ("AB" * 32, "ab" * 31, "ab" * 33, "zz" * 32, "ab" * 32 + "\n"):
        with pytest.raises(BadRequest, match="is no digest"):
            parse_digest(text)


def test_an_error_quotes_only_the_beginning_of_what_it_got() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_model_name("x" * 100_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("kws", ModelRef(parse_model_name("kws"))),
        ("kws:canary", ModelRef(parse_model_name("kws"), alias=parse_alias("canary"))),
        ("kws@3", ModelRef(parse_model_name("kws"), version=3)),
        ("kws@2147483647", ModelRef(parse_model_name("kws"), version=2**31 - 1)),
    ],
)
def test_references_read_and_print(text: str, ref: ModelRef) -> None:
    assert parse_model_ref(text) == ref
    assert str(ref) == text


@pytest.mark.parametrize(
    "text", ["kws@", "kws@0", "kws@-1", "kws@1.0", "kws@²", "kws@2147483648", "kws@99999999999", "kws@1@2", "kws@ 1"]
)
def test_bad_versions(text: str) -> None:
    with pytest.raises(BadRequest, match="a version is a whole number from 1"):
        parse_model_ref(text)


@pytest.mark.parametrize("text", ["", ":stable", "@1", "kws:", "kws:a:b", "kws:st@1"])
def test_bad_references(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_model_ref(text)


@given(st.text(max_size=80))
def test_any_text_is_a_reference_that_prints_itself_or_one_error(text: str) -> None:
    try:
        ref = parse_model_ref(text)
    except BadRequest:
        return
    assert re.fullmatch(r"[a-z0-9_-]+([:@][a-z0-9_-]+)?", text)
    assert parse_model_ref(str(ref)) == ref
