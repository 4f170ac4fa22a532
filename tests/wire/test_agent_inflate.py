import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.compression import deflated
from gatewayd.core.errors import BadRequest
from gatewayd.core.module import Deflate
from gatewayd.core.names import Digest, PushId
from gatewayd.sim.flash import Tear
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from gatewayd.wire.agent_inflate import READ_BYTES, inflated_pages
from gatewayd.wire.agent_memory import inflate_bytes
from prove.device import digest_of
from tests.agent_bench import PAGE, Bench, content_of, installed, make_capabilities, offer_of
from tests.agent_vectors import LONG, deflated_offer

CONTENT = bytes(index * index % 7 for index in range(3_000))


def decoded(stream: bytes, size_bytes: int, *, window_bits: int = 10, piece: int = READ_BYTES) -> list[bytes]:
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    return list(inflated_pages(pieces, window_bits=window_bits, size_bytes=size_bytes, page_bytes=512))


@given(st.binary(max_size=3_000), st.integers(1, 300))
def test_what_was_deflated_comes_back_in_pages(content: bytes, piece: int) -> None:
    pages = decoded(deflated(content, 10), len(content), piece=piece)
    assert b"".join(pages) == content
    assert all(len(page) == 512 for page in pages[:-1])


@given(st.binary(max_size=300), st.integers(1, 600))
def test_any_bytes_are_an_artifact_or_the_one_error_and_never_too_long(stream: bytes, size_bytes: int) -> None:
    written = 0
    try:
        for page in inflated_pages([stream], window_bits=9, size_bytes=size_bytes, page_bytes=64):
            written += len(page)
    except BadRequest:
        pass
    else:
        assert written == size_bytes
    assert written <= size_bytes


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (deflated(CONTENT + b"!", 10), "more than 3000 bytes"),
        (deflated(bytes(10_000_000), 10), "more than 3000 bytes"),
        (deflated(CONTENT[:-1], 10), "2999 bytes, 3000 were due"),
        (deflated(CONTENT, 10)[:-2], "bytes, 3000 were due"),
        (deflated(CONTENT, 10) + b"?", "bytes after the stream's end"),
        (deflated(CONTENT, 10).ljust(READ_BYTES * 20, b"?"), "bytes after the stream's end"),
        (b"", "0 bytes, 3000 were due"),
        (b"\xff" * 100, "Error -3"),
    ],
)
def test_a_hostile_stream_is_refused(stream: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        decoded(stream, 3_000)


def test_a_reach_back_past_the_window_is_refused() -> None:
    noise = bytes(hash_byte for index in range(128) for hash_byte in bytes.fromhex(digest_of(bytes([index]))))
    far = noise + noise[:500]
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    with pytest.raises(BadRequest, match="too far back"):
        decoded(encoder.compress(far) + encoder.flush(), len(far), window_bits=9)


def test_the_memory_is_as_the_document_says() -> None:
    assert inflate_bytes(12, 1024) == 7168 + 4096 + 1024 + 256


def _bench(content: bytes) -> tuple[Bench, bytes]:
    """A device that decodes, and what it is sent."""
    bench = Bench(capabilities=make_capabilities(slot_bytes=512, deflate_bits=9)).start()
    return bench, deflated(content, 9)


def test_a_stream_is_received_at_the_slots_end_and_decoded_before_it() -> None:
    bench, stream = _bench(LONG)
    bench.push(deflated_offer(1, LONG), stream)
    assert bench.runnable() == {"kws": 1}
    assert bench.flash.read(0, 512 - PAGE * -(-len(stream) // PAGE), len(stream)) == stream
    bench.start()
    assert bench.runnable() == {"kws": 1}


def test_a_cut_costs_no_chunk_that_is_in_flash() -> None:
    bench, stream = _bench(LONG)
    bench.offer(deflated_offer(1, LONG))
    bench.chunk(1, stream)
    bench.start()
    bench.offer(deflated_offer(1, LONG))
    assert bench.reports()[-1].offset == PAGE


def test_another_stream_of_the_same_artifact_begins_anew() -> None:
    bench, stream = _bench(LONG)
    offer = deflated_offer(1, LONG)
    bench.offer(offer)
    bench.chunk(1, stream)
    bench.start()
    other = zlib.compressobj(1, zlib.DEFLATED, -9)
    again = other.compress(LONG) + other.flush()
    bench.push(deflated_offer(2, LONG, stream=again), again)
    assert 0 in [report.offset for report in bench.reports() if report.push == 2]
    assert bench.runnable() == {"kws": 1}


@pytest.mark.parametrize("tear", Tear)
@pytest.mark.parametrize("page", range(7))
def test_power_cut_while_decoding_decodes_anew(page: int, tear: Tear) -> None:
    bench, stream = _bench(LONG)
    offer = deflated_offer(1, LONG)
    bench.offer(offer)
    while bench.reports()[-1].offset + PAGE < len(stream):
        bench.chunk(1, stream)
    chunks = sum(isinstance(each, terms.WriteSlot) for each in bench.commands)
    bench.cut_after(3 + page, tear)  # the last chunk, and progress in both copies
    bench.chunk(1, stream)
    assert bench.slots()[0][0] == "staging"
    bench.start()
    bench.push(offer, stream)
    assert bench.runnable() == {"kws": 1}
    assert sum(isinstance(each, terms.WriteSlot) for each in bench.commands) == chunks + 1


@pytest.mark.parametrize(
    ("encoding", "reason"),
    [
        (Deflate(10, 50, Digest("0" * 64)), "encoding not known"),
        (Deflate(9, 300, Digest("0" * 64)), "no room for 300 encoded bytes beside 200"),
    ],
)
def test_a_stream_that_cannot_be_taken_is_refused(encoding: Deflate, reason: str) -> None:
    bench, _ = _bench(LONG)
    bench.offer(deflated_offer(1, LONG, encoding=encoding))
    assert [report.reason for report in bench.reports()] == [reason]


def test_a_device_that_does_not_decode_refuses_streams() -> None:
    bench = Bench().start()
    bench.offer(deflated_offer(1, LONG))
    assert bench.reports()[-1].reason == "encoding not known"


def test_a_flipped_byte_is_dropped_before_anything_is_decoded() -> None:
    bench, stream = _bench(LONG)
    bench.transfer(deflated_offer(1, LONG), bytes([stream[0] ^ 1]) + stream[1:])
    assert bench.reports()[-1].reason == "digest of the encoded bytes differs"
    assert not any(isinstance(each, terms.InflateSlot) for each in bench.commands)


def test_one_slot_is_given_up_for_a_newer_version_where_the_firmware_says_so() -> None:
    bench = Bench(slot_count=1, takes_one_slot=True).start()
    one, two = content_of("kws", 1), content_of("kws", 2)
    bench.push(offer_of(1, one), one)
    assert bench.slots() == [("active", "kws", 1)]
    bench.offer(offer_of(2, two, version=2))
    assert bench.slots() == [("staging", "kws", 2)]
    assert bench.runnable() == {}
    bench.push(offer_of(2, two, version=2), two)
    assert bench.runnable() == {"kws": 2}


def test_one_slot_without_a_model_says_so_and_can_be_pushed_to() -> None:
    bench = Bench(slot_count=1, takes_one_slot=True).start()
    one, two = content_of("kws", 1), content_of("kws", 2)
    bench.push(offer_of(1, one), one)
    bench.transfer(offer_of(2, two, version=2), two)
    bench.send("cancel", wire.encode_cancel(PushId(2), "changed my mind"))
    assert bench.slots() == [("empty", "", 0)]
    assert b'"slots":[{"slot":0,"state":"empty"}]' in bench.last("status").payload
    bench.offer(offer_of(3, one, version=1, arena=9_999))
    assert bench.reports()[-1].reason == "arena 9999 > 1000 bytes"
    bench.push(offer_of(4, two, version=2), two)
    assert bench.runnable() == {"kws": 2}


def test_one_slot_keeps_its_model_when_the_offer_is_refused() -> None:
    bench = Bench(slot_count=1, takes_one_slot=True).start()
    one, other = content_of("kws", 1), content_of("vww", 1)
    bench.push(offer_of(1, one), one)
    bench.offer(offer_of(2, other, model="vww"))
    bench.offer(offer_of(3, content_of("kws", 2), version=2, operator="POW"))
    assert [report.phase.value for report in bench.reports()[-2:]] == ["rejected", "rejected"]
    assert bench.runnable() == {"kws": 1}


def test_two_slots_never_give_up_the_model_that_runs() -> None:
    bench = installed()
    two = content_of("kws", 2)
    bench.offer(offer_of(2, two, version=2))
    assert [state for state, _, _ in bench.slots()] == ["active", "staging"]
