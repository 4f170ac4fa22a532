from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.core.model import About
from gatewayd.core.names import Alias, Digest, ModelName
from gatewayd.core.source import ManifestFile, ModelManifest
from gatewayd.wire.model_manifest import is_whole, parse_manifest, parse_tag

DIGEST = "ab" * 32
MINIMAL = f"model: kws\nfiles: [{{name: a.tflite, sha256: {DIGEST}}}]\n"


def test_everything() -> None:
    text = MINIMAL + (
        f"version: 3\nalias: canary\nsamples: {{name: s.f32, sha256: {DIGEST}}}\nlabels: [yes it is, no]\n"
        "preprocessing: kws-mfcc@1\nnote: hi\nlicence: MIT\ncard: |\n  # KWS\ntags: {b: '2', a: x}\n...\n"
    )
    assert parse_manifest(text) == ModelManifest(
        ModelName("kws"),
        (ManifestFile("a.tflite", Digest(DIGEST)),),
        3,
        Alias("canary"),
        ("yes it is", "no"),
        "kws-mfcc@1",
        "hi",
        ManifestFile("s.f32", Digest(DIGEST)),
        About("MIT", "# KWS", (("a", "x"), ("b", "2"))),
    )


def test_the_least() -> None:
    assert parse_manifest(MINIMAL).files == (ManifestFile("a.tflite", Digest(DIGEST)),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must be a mapping"),
        ("model: kws\n", "manifest.files: must be a list of 1 to 8 files"),
        ("model: KWS\n" + MINIMAL.partition("\n")[2], "is no model name"),
        (MINIMAL + "model: x\n", "manifest: "),
        (MINIMAL.replace("a.tflite", "../a"), r"files\[0\].name: must be a plain file name"),
        (MINIMAL.replace("a.tflite", ".hidden"), r"files\[0\].name: must be a plain file name"),
        (MINIMAL.replace(DIGEST, "abc"), "is no digest"),
        (MINIMAL + "version: 0\n", "manifest.version: must be a whole number from 1"),
        (MINIMAL + "version: true\n", "manifest.version"),
        (MINIMAL + "labels: [1]\n", "manifest.labels: each must be a text"),
        (MINIMAL + "tags: {A: x}\n", "tag 'A'"),
        (MINIMAL + "tags: {a: 1}\n", "tag 'a'"),
        (MINIMAL + f"note: {'x' * 501}\n", "manifest.note: must be a text of at most 500"),
    ],
)
def test_mistakes_name_their_key(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse_manifest(text)


@pytest.mark.parametrize(
    ("text", "is_it"), [("a: 1\n...\n", True), ("a: 1\n...", True), ("a: 1\n", False), ("...", False)]
)
def test_the_last_line(text: str, is_it: bool) -> None:  # noqa: FBT001 - a parametrised case
    assert is_whole(text) is is_it


@pytest.mark.parametrize(("text", "tag"), [("a=b", ("a", "b")), ("a.b-c=", ("a.b-c", "")), ("k=x=y", ("k", "x=y"))])
def test_tags(text: str, tag: tuple[str, str]) -> None:
    assert parse_tag(text) == tag


@pytest.mark.parametrize("text", ["a", "=b", "A=b", "a=" + "x" * 129, "a=\n"])
def test_no_tags(text: str) -> None:
    with pytest.raises(BadRequest, match="must be key=value"):
        parse_tag(text)


@given(st.text(max_size=300))
def test_any_text_is_a_manifest_or_a_mistake(text: str) -> None:
    with suppress(BadRequest):
        assert parse_manifest(text).files
