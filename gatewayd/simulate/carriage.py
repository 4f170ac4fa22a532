"""What the device protocols make of a link: the questions a run takes, the bytes around what is carried, one at a time or many.

A group of a scenario that names no protocol has none of this: its link carries each message by itself, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Protocol:
    """Bytes are on air, with all heads; steps are questions to the device, each with its answer.

    `question`, `answer`: of a step that carries nothing. A sample takes `sample_steps`, and has
    `sample_bytes` around it; a run takes `run_steps`, before the first
    one of a model `first_run_steps` more, and its answer has `run_bytes` beside the output.
    `is_one_at_a_time`: a device is asked one thing at a time, as CoAP's NSTART has it; else only bytes wait for bytes.
    `block_bytes`: what more than so much takes one more round trip each time, `wrapping` bytes included (None: one piece).
    A push: `offer_steps` that carry `offer_bytes`; chunks of at most `most_chunk_bytes` (None: of the link's), asked for
    `ahead_blocks` before the last one has left, with `chunk_down` and `chunk_up` bytes around each block; `end_steps` until it
    is tested, `trial_steps` with `trial_bytes` until it answers, `proof_steps` until it stays.
    """

    name: str
    question: int
    answer: int
    sample_steps: int
    sample_bytes: int
    run_steps: int
    first_run_steps: int
    run_bytes: int
    is_one_at_a_time: bool
    block_bytes: int | None
    wrapping: int
    offer_steps: int
    offer_bytes: int
    most_chunk_bytes: int | None
    ahead_blocks: int
    chunk_down: int
    chunk_up: int
    end_steps: int
    trial_steps: int
    trial_bytes: int
    proof_steps: int


# Measured on simulated boards by asking over links of 20 and 120 ms and of 5 kB/s and 1 MB/s: the differences are round trips and
# bytes. The gateway's name has eight letters, the devices' ten. MQTT without TCP and IP (the simulated radio counts none), CoAP
# with UDP and IPv4. Over LwM2M a run counts the notification with its result, a chunk the one of its progress.
PROTOCOLS: Mapping[str, Protocol] = {
    each.name: each
    for each in (
        Protocol(
            "mqtt",
            question=58,
            answer=66,
            sample_steps=1,
            sample_bytes=0,
            run_steps=1,
            first_run_steps=0,
            run_bytes=8,
            is_one_at_a_time=False,
            block_bytes=None,
            wrapping=0,
            offer_steps=1,
            offer_bytes=1300,
            most_chunk_bytes=None,
            ahead_blocks=0,
            chunk_down=55,
            chunk_up=128,
            end_steps=0,
            trial_steps=1,
            trial_bytes=900,
            proof_steps=2,
        ),
        Protocol(
            "lwm2m",
            question=60,
            answer=44,
            sample_steps=2,
            sample_bytes=100,
            run_steps=1,
            first_run_steps=1,
            run_bytes=219,
            is_one_at_a_time=True,
            block_bytes=1024,
            wrapping=24,
            offer_steps=5,
            offer_bytes=600,
            most_chunk_bytes=16_384,
            ahead_blocks=3,
            chunk_down=65,
            chunk_up=165,
            end_steps=3,
            trial_steps=4,
            trial_bytes=390,
            proof_steps=7,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Overheads:
    """What a machine adds where a protocol is named, in milliseconds; measured on one (docs/placement.md).

    `request_ms`: the gateway and the way to it, per request; `mqtt_ms` and `lwm2m_ms`: gateway, broker and board, per question to
    a device; `chunk_ms`: flash, per chunk of a push, beside that; `push_ms`: preparing and journalling one.
    """

    request_ms: float = 2.0
    mqtt_ms: float = 3.0
    lwm2m_ms: float = 3.0
    chunk_ms: float = 3.0
    push_ms: float = 60.0
