"""Manifests of the watched folder: strict YAML that names a model, its files with their digests, and what is known of it.

A manifest ends with a line `...` (YAML's end of a document): one that was written half is seen to be, wherever it was cut.
"""

import re

from gatewayd.core.errors import BadRequest
from gatewayd.core.model import About
from gatewayd.core.names import parse_alias, parse_digest, parse_model_name
from gatewayd.core.source import ManifestFile, ModelManifest
from gatewayd.wire.strict_yaml import YamlRefused, YamlValue, load_yaml

MAX_FILES = 8
MAX_LABELS = 4096
MAX_TAGS = 32
MAX_TEXT = 500
MAX_CARD = 64 * 1024
"""Limits of what is kept with a version; they protect the store and every listing."""

_KEYS = (
    "model", "version", "alias", "files", "samples", "labels", "preprocessing", "note", "licence", "card", "tags",
)  # fmt: skip
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_TAG = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_MAX_VERSION = 2**31 - 1

Members = dict[str, YamlValue]


def is_whole(text: str) -> bool:
    """Tell whether the manifest has its last line."""
    return text.endswith(("\n...\n", "\n..."))


def parse_manifest(text: str) -> ModelManifest:
    """Read one manifest. Raises: BadRequest naming the key."""
    members = _mapping(text)
    unknown = sorted(set(members) - set(_KEYS))
    if unknown:
        raise BadRequest(f"manifest: unknown key {unknown[0][:40]!r}; known are {', '.join(_KEYS)}")
    files = _files(members)
    alias = _text(members, "alias", most=63)
    return ModelManifest(
        model=parse_model_name(_text(members, "model", most=63)),
        files=files,
        version=_version(members),
        alias=parse_alias(alias) if alias else None,
        labels=_texts(members, "labels"),
        preprocessing=_text(members, "preprocessing", most=128),
        note=_text(members, "note", most=MAX_TEXT),
        samples=_file(members["samples"], "samples") if members.get("samples") is not None else None,
        about=About(_text(members, "licence", most=128), _text(members, "card", most=MAX_CARD), _tags(members)),
    )


def parse_tag(text: str) -> tuple[str, str]:
    """Read `key=value`. Raises: BadRequest."""
    key, equals, value = text.partition("=")
    return _checked_tag(key, value if equals else None)


def _mapping(text: str) -> Members:
    try:
        parsed = load_yaml(text)
    except YamlRefused as error:
        raise BadRequest(f"manifest: {error}") from error
    if not isinstance(parsed, dict):
        raise BadRequest("manifest: must be a mapping of keys to values")
    return parsed


def _text(members: Members, key: str, *, most: int) -> str:
    value = members.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise BadRequest(f"manifest.{key}: must be a text of at most {most} characters")
    return value.strip()


def _version(members: Members) -> int | None:
    value = members.get("version")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_VERSION:
        raise BadRequest("manifest.version: must be a whole number from 1")
    return value


def _files(members: Members) -> tuple[ManifestFile, ...]:
    value = members.get("files")
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_FILES:
        raise BadRequest(f"manifest.files: must be a list of 1 to {MAX_FILES} files")
    return tuple(_file(each, f"files[{index}]") for index, each in enumerate(value))


def _file(value: YamlValue, where: str) -> ManifestFile:
    if not isinstance(value, dict) or set(value) != {"name", "sha256"}:
        raise BadRequest(f"manifest.{where}: must have the keys name and sha256")
    name, digest = value["name"], value["sha256"]
    # No folder, no "..": a manifest names what lies beside it.
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        raise BadRequest(f"manifest.{where}.name: must be a plain file name")
    if not isinstance(digest, str):
        raise BadRequest(f"manifest.{where}.sha256: must be 64 hex digits (in quotes, should they all be decimal)")
    return ManifestFile(name, parse_digest(digest))


def _texts(members: Members, key: str) -> tuple[str, ...]:
    value = members.get(key) or []
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        raise BadRequest(f"manifest.{key}: must be a list of at most {MAX_LABELS} texts")
    texts = [each for each in value if isinstance(each, str) and 1 <= len(each) <= 128]  # noqa: PLR2004 - as in models.add
    if len(texts) != len(value):
        raise BadRequest(f"manifest.{key}: each must be a text of 1 to 128 characters")
    return tuple(texts)


def _tags(members: Members) -> tuple[tuple[str, str], ...]:
    value = members.get("tags") or {}
    if not isinstance(value, dict) or len(value) > MAX_TAGS:
        raise BadRequest(f"manifest.tags: must be a mapping of at most {MAX_TAGS} keys")
    return tuple(sorted(_checked_tag(key, each) for key, each in value.items()))


def _checked_tag(key: str, value: YamlValue) -> tuple[str, str]:
    if not _TAG.fullmatch(key) or not isinstance(value, str) or len(value) > 128 or not value.isprintable():  # noqa: PLR2004 - as labels
        raise BadRequest(f"tag {key[:63]!r}: must be key=value, the key of a–z, 0–9, '_', '.', '-', the value text")
    return key, value
