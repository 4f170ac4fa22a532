"""The memory that a worker shares with who started it: where inferences go and answers come from. Both sides use this file.

Three descriptors are inherited beside the control socket: a memfd of MEMORY_BYTES whose size is sealed (nobody can cut it off
under the other's feet; it is sparse, and only what a model needs is ever touched), and an eventfd in either direction.

The memory begins with the order of inferences, one byte for each of the MAX_SLOTS latest: inference number n (from 1 after
each load) is in the slot that byte n mod MAX_SLOTS names. Then come the slots, as many as `layout` says for the tensors of the
loaded model; who submits takes the lowest that is free, which the processor's caches still hold. In a slot, little-endian: a
request

    u64  number        u32  stream (0: none)     u32  flags (RESET)     f64  deadline, seconds of CLOCK_MONOTONIC, 0: none

then, at ANSWER_OFFSET, an answer

    u64  number        u32  status               u32  reserved          f64  seconds computed

then each input and each output, raw, at multiples of ALIGNMENT_BYTES.

Nothing else is shared: no counters, no locks. Who submits writes a slot and adds 1 to the worker's eventfd; the worker takes as
many slots as the eventfd counted and adds 1 to the other eventfd after each answer. Those system calls order memory, and
several requests arrive in one wake-up. SOON added to the worker's eventfd wakes it ahead of a request.

A large request to a worker that has nothing else to do may come in pieces: after the header and each piece of its inputs (see
`pieces`) but the last, who submits adds PIECE, and 1 as ever when all of it is there. A worker may take the pieces in as they
come, while the next are being written on another processor; it need not. The byte at AWAKE_OFFSET is 1 while the worker waits
awake: only then is that worth anything, and it need not be woken with SOON. Nothing but time depends on it.
Control frames and inferences are never on their way at the same time.

Who reads an answer copies it once and checks the copy: whatever a worker writes, it can only answer wrongly.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

MEMORY_BYTES = 160 * 1024 * 1024
MAX_SLOT_BYTES = MEMORY_BYTES
"""All inputs and outputs of one inference; protects memory."""
MAX_SLOTS = 16
"""More would not be served sooner: one interpreter runs one after the other, and a crash hands back what it did not come to."""
MAX_STREAMS = 64
"""Interpreters that one worker keeps for streams; protects memory."""

ORDER_BYTES = 4096
AWAKE_OFFSET = 64
ALIGNMENT_BYTES = 64
HEADER_BYTES = 64
ANSWER_OFFSET = 32
REQUEST = struct.Struct("<QIId")
ANSWER = struct.Struct("<QIId")
COUNT = struct.Struct("<Q")
PIECE = 1 << 16
"""Added to the worker's eventfd: one more piece of the next inference is there. At most 1,344 are on their way (160 MB of
64 tensors), so that they stay below SOON."""
SOON = 1 << 32
"""Added to the worker's eventfd: an inference is being read, stay awake for it."""
PIECE_BYTES = 128 * 1024
"""Small enough that the last one, which nobody copies meanwhile, takes 7 µs; large enough that telling of it (1 µs) is little."""
AWAKE_S = 0.0005
"""A small request is read, answered and followed by the next within it; a wrong guess costs no more."""

RESET = 1
DONE, REFUSED, EXPIRED = 1, 2, 3

_SHARED_BYTES = (
    8 * 1024 * 1024
)  # what the slots together take at most, while two fit: keeps a worker's memory near its model's
_PAGE_BYTES = 4096
_PIECES_FROM_BYTES = 2 * PIECE_BYTES


class Piece(NamedTuple):
    """A part of one input: its number, and from where to where."""

    tensor: int
    start: int
    end: int


class Wake(NamedTuple):
    """What the worker's eventfd counted."""

    inferences: int
    pieces: int
    is_soon: bool


def read_count(count: int) -> Wake:
    """Take apart what was read from the worker's eventfd."""
    return Wake(count % PIECE, count % SOON // PIECE, count >= SOON)


def pieces(inputs: Sequence[int]) -> list[Piece]:
    """Cut inputs of these sizes in bytes; none when they are so small that they come whole."""
    if sum(inputs) < _PIECES_FROM_BYTES:
        return []
    cuts = ((tensor, size, start) for tensor, size in enumerate(inputs) for start in range(0, size, PIECE_BYTES))
    return [Piece(tensor, start, min(size, start + PIECE_BYTES)) for tensor, size, start in cuts]


class Layout(NamedTuple):
    """Where everything is. Offsets of tensors are from the start of their slot."""

    slots: int
    slot_bytes: int
    inputs: list[tuple[int, int]]
    outputs: list[tuple[int, int]]

    @property
    def total_bytes(self) -> int:
        """How much of the memory is used."""
        return ORDER_BYTES + self.slots * self.slot_bytes

    def start(self, slot: int) -> int:
        """Return where a slot begins."""
        return ORDER_BYTES + slot * self.slot_bytes


def layout(inputs: Sequence[int], outputs: Sequence[int]) -> Layout:
    """Lay out slots for tensors of these sizes in bytes.

    Raises: ValueError when one inference does not fit.
    """
    places, at = [], HEADER_BYTES
    for size in (*inputs, *outputs):
        places.append((at, at + size))
        at += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    if at > MAX_SLOT_BYTES - ORDER_BYTES:
        message = f"its inputs and outputs are {at} bytes; a worker's shared memory holds {MAX_SLOT_BYTES}"
        raise ValueError(message)
    slot_bytes = -(-at // _PAGE_BYTES) * _PAGE_BYTES
    slots = max(1, min(MAX_SLOTS, _SHARED_BYTES // slot_bytes))
    return Layout(slots, slot_bytes, places[: len(inputs)], places[len(inputs) :])
