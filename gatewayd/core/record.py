"""Values that are made for every request: records that nobody changes, which the type checker sees to.

A dataclass that is frozen at run time, too, costs 0.1 µs more per field each time one is made; a request makes a hundred fields.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a dataclass with slots, equal and hashed by its fields; to change one is an error of types."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
