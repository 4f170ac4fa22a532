"""What a value of the config file may be: numbers within bounds, names, addresses, paths; and the class of its sections."""

import re
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator


def host_name() -> str:
    """Return the machine's host name as a node may be called."""
    return re.sub(r"[^a-z0-9_-]+", "-", socket.gethostname().lower()).strip("-_")[:63] or "gateway"


def _from_config_folder(path: Path, info: ValidationInfo) -> Path:
    if not path.name or "\0" in str(path):
        raise ValueError("names no file or directory: write a path, or null where that is allowed")
    return Path(info.context["folder"], path) if info.context else path


def one_level(text: str) -> str:
    """Check a name that is one level of a topic."""
    return _matched(text, r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", "must be 1–63 letters, digits, '_', '.' or '-'")


def topic(text: str) -> str:
    """Check topic levels."""
    return _matched(
        text,
        r"[^/+#$\s\0][^+#\s\0]{0,127}(?<!/)",
        "must be topic levels without '+', '#', blanks or a '/' at either end",
    )


def reply_prefix(text: str) -> str:
    """Check the beginning of topics for replies."""
    return _matched(
        text, r"[^/+#$\s\0][^+#\s\0]{0,126}/", "must be topic levels that end in '/', without '+', '#' or blanks"
    )


def address(text: str) -> str:
    """Check a host."""
    return _matched(
        text, r"[A-Za-z0-9_.:%-]{1,253}", "must be a host name or an IP address (the port is an option of its own)"
    )


def _matched(text: str, pattern: str, rule: str) -> str:
    if re.fullmatch(pattern, text):
        return text
    raise ValueError(f"{text!r:.60} {rule}")


def within(low: float, high: float) -> AfterValidator:
    """Bound a number; unlike pydantic's own constraints, the error names both ends."""

    def check(number: float) -> float:
        if low <= number <= high:
            return number
        size = "small" if number < low else "large"
        raise ValueError(f"{number} is too {size} ({low}–{high})")

    return AfterValidator(check)


Port = Annotated[int, within(1, 65535)]
AnyPort = Annotated[int, within(0, 65535)]
Seconds = Annotated[float, within(0.1, 86_400)]
Weight = Annotated[float, within(0, 1e9)]
Host = Annotated[str, AfterValidator(address)]
FilePath = Annotated[Path, Field(strict=False), AfterValidator(_from_config_folder)]
NodeName = Annotated[
    str, BeforeValidator(lambda name: host_name() if name is None else name), AfterValidator(one_level)
]
Version = Annotated[Literal["5", "3.1.1", "auto"], BeforeValidator(lambda version: "5" if version == 5 else version)]  # noqa: PLR2004 - unquoted in YAML it is a number


class Section(BaseModel):
    """A mapping of the file. Immutable; a key it does not know is a problem; left empty, it holds its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_means_defaults(cls, given: object) -> object:
        return {} if given is None else given
