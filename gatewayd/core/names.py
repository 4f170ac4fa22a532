"""Identities and the grammar of names: what may stand in a topic, a path, a file name and a metric label.

Every name that arrives from outside passes through here once; past this point a `ModelName` is known to be harmless.
"""

import re
from functools import lru_cache
from typing import NewType

from gatewayd.core.errors import BadRequest
from gatewayd.core.record import record

ModelName = NewType("ModelName", str)
DeviceId = NewType("DeviceId", str)
Alias = NewType("Alias", str)
Digest = NewType("Digest", str)
RequestId = NewType("RequestId", str)
PushId = NewType("PushId", int)

STABLE = Alias("stable")

# 63 characters: an MQTT level, a DNS label and a file name all hold it.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_DIGITS = 10
_MAX_VERSION = 2**31 - 1  # a device keeps the anti-rollback sequence in 32 bits


@record
class ModelRef:
    """What a caller names: `kws` (its stable version), `kws:canary` (an alias) or `kws@3` (a version)."""

    name: ModelName
    alias: Alias | None = None
    version: int | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}@{self.version}"
        return f"{self.name}:{self.alias}" if self.alias else str(self.name)


def parse_model_name(text: str) -> ModelName:
    """Raises: BadRequest when `text` is not 1–63 characters of a–z, 0–9, `_`, `-`."""
    return ModelName(_checked(_NAME, text, what="model name"))


def parse_alias(text: str) -> Alias:
    """Raises: BadRequest when `text` is not 1–63 characters of a–z, 0–9, `_`, `-`."""
    return Alias(_checked(_NAME, text, what="alias"))


def parse_device_id(text: str) -> DeviceId:
    """Raises: BadRequest when `text` is not 1–63 characters of letters, digits, `_`, `.`, `:`, `-`."""
    return DeviceId(_checked(_DEVICE, text, what="device id"))


def parse_digest(text: str) -> Digest:
    """Raises: BadRequest when `text` is not a SHA-256 in 64 lower-case hex digits."""
    return Digest(_checked(_DIGEST, text, what="digest"))


@lru_cache(maxsize=1024)  # every request names a model, and there are few
def parse_model_ref(text: str) -> ModelRef:
    """Read `kws`, `kws:stable` or `kws@3`.

    Raises: BadRequest when it is none of these.
    """
    name, at, version = text.partition("@")
    if at:
        return ModelRef(parse_model_name(name), version=_parse_version(version, whole=text))
    name, colon, alias = text.partition(":")
    return ModelRef(parse_model_name(name), alias=parse_alias(alias) if colon else None)


def _parse_version(text: str, *, whole: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS or not 1 <= int(text) <= _MAX_VERSION:
        message = f"{whole[:80]!r}: a version is a whole number from 1, as in 'kws@3'"
        raise BadRequest(message)
    return int(text)


def _checked(pattern: re.Pattern[str], text: str, *, what: str) -> str:
    if not pattern.fullmatch(text):
        message = f"{text[:80]!r} is no {what}: it must match {pattern.pattern}"
        raise BadRequest(message)
    return text
