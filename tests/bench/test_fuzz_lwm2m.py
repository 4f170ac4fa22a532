"""The malformed messages of `make fuzz-lwm2m` through the readers; datagrams framed as an independent reader wants them."""

from collections import Counter

import aiocoap  # type: ignore[import-untyped]  # aiocoap ships no types
import pytest

insane_coap = pytest.importorskip("bench.insane_coap")
insane_lwm2m = pytest.importorskip("bench.insane_lwm2m")
fuzz_lwm2m = pytest.importorskip("bench.fuzz_lwm2m")


def test_malformed_messages_are_read_or_refused() -> None:
    found = fuzz_lwm2m.fuzz(range(600), 1)
    assert sum(found.outcomes.values()) == 600
    assert any("BadRequest" in each for each in found.outcomes)
    assert any("TooLarge" in each for each in found.outcomes)


def test_a_number_and_a_seed_are_always_the_same_message() -> None:
    for made in (insane_lwm2m.case, insane_coap.datagram):
        assert [made(number, 7) for number in range(50)] == [made(number, 7) for number in range(50)]
        assert made(9, 7) != made(9, 8)


def test_there_are_ten_families() -> None:
    assert set(Counter(insane_lwm2m.case(number, 1).family for number in range(100)).values()) == {10}


def test_what_is_well_framed_is_so_for_an_independent_reader() -> None:
    options = [(11, b"rd"), (15, b"ep=" + b"x" * 300), (12, b"\x28"), (60, b"\x01\x00")]
    raw = insane_coap.coap(insane_coap.CON, insane_coap.POST, 4711, b"tok", options, b"</3/0>")
    message = aiocoap.Message.decode(raw)
    assert (message.mid, message.token, message.code, message.payload) == (4711, b"tok", aiocoap.POST, b"</3/0>")
    assert message.opt.uri_path == ("rd",)
    assert message.opt.uri_query == ("ep=" + "x" * 300,)
    assert (message.opt.content_format, message.opt.size1) == (40, 256)
