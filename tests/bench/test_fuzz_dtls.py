"""A small share of the DTLS datagrams of `make fuzz-lwm2m`."""

import pytest

pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: no DTLS here")
fuzz_dtls = pytest.importorskip("bench.fuzz_dtls")
insane_dtls = pytest.importorskip("bench.insane_dtls")


def test_devices_go_on_beside_malformed_and_forged_datagrams() -> None:
    found = fuzz_dtls.fuzz(range(2000), 7)
    assert (found.lost, found.handshakes_failed) == (0, 0)
    assert found.heard == 2 * found.handshakes == 16


def test_a_number_and_a_seed_are_always_the_same_datagram() -> None:
    recorded = insane_dtls.Recorded((b"abcdefghijklmnopq",), (b"qrstuvwxyzabcdefg",))
    made = [insane_dtls.datagram(recorded, number, 7) for number in range(40)]
    assert made == [insane_dtls.datagram(recorded, number, 7) for number in range(40)]
    assert len({family for family, _ in made}) == 10
