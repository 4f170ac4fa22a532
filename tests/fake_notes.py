"""What fakes do with a command's note."""

from typing import TypeVar

from gatewayd.core.command import Note

T = TypeVar("T")


def noted(note_of: Note[T] | None, outcome: T) -> None:
    """Make the record, as whoever writes the outcome's rows has to."""
    if note_of is not None:
        note_of(outcome)
