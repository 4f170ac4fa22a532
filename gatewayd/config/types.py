"""What the sections of the config are made of: their base, paths, names and bounded numbers."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator


def from_config_folder(path: Path, info: ValidationInfo) -> Path:
    """Let a relative path begin at the folder of the config. Raises: ValueError when it names nothing."""
    if not path.name or "\0" in str(path):
        raise ValueError("names no file or directory: write a path, or null where that is allowed")
    return Path(info.context["folder"], path) if info.context else path


def one_level(text: str) -> str:
    """Check that a text is one level of a topic or path. Raises: ValueError."""
    return matched(text, r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", "must be 1–63 letters, digits, '_', '.' or '-'")


def matched(text: str, pattern: str, rule: str) -> str:
    """Check a text against a pattern. Raises: ValueError telling the rule."""
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


Seconds = Annotated[float, within(0.1, 86_400)]
FilePath = Annotated[Path, Field(strict=False), AfterValidator(from_config_folder)]


class Section(BaseModel):
    """A mapping of the file. Immutable; a key it does not know is a problem; left empty, it holds its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_means_defaults(cls, given: object) -> object:
        return {} if given is None else given
