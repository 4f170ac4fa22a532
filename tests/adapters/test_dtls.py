import pytest

pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: no DTLS here")

from bench.insane_dtls import Client, record
from gatewayd.adapters.dtls import MAX_HANDSHAKES, Address, DtlsSessions, whole_records

KEYS = {"id-1": b"secret-1", "id-2": b"secret-2"}
HERE: Address = ("192.0.2.1", 1000)


def sessions(*, most: int = 10) -> DtlsSessions:
    return DtlsSessions(KEYS, most=most, clock=lambda: 0.0)


def shaken(server: DtlsSessions, address: Address = HERE, identity: str = "id-1") -> tuple[Client, tuple[bytes, ...]]:
    client, recorded = record(lambda each: server.receive(each, address).replies, identity, KEYS[identity])
    return client, recorded.flights


def test_who_forges_a_beginning_takes_nothing_from_an_association() -> None:
    server = sessions()
    client, flights = shaken(server)
    for each in flights:
        server.receive(each, HERE)
    assert server.receive(client.seal(b"still here"), HERE).messages == [b"still here"]


def test_what_is_left_over_behind_a_record_takes_nothing_from_it() -> None:
    server = sessions()
    client, _ = shaken(server)
    sealed = client.seal(b"one")
    assert server.receive(sealed + b"x" * 100, HERE).messages == [b"one"]
    assert server.receive(sealed + b"x" * 100, HERE).messages == [], "the same again says nothing"
    assert server.receive(client.seal(b"two"), HERE).messages == [b"two"]


def test_a_client_that_ends_its_association_is_believed() -> None:
    server = sessions()
    client, _ = shaken(server)
    heard = server.receive(client.farewell(), HERE)
    assert (heard.has_ended, heard.identity, server.identity(HERE)) == (True, "id-1", None)


def test_first_messages_without_a_cookie_cost_no_handshake_and_are_not_remembered() -> None:
    server = sessions()
    client = Client("id-1", KEYS["id-1"])
    (hello,) = client.step()
    (with_cookie,) = client.step(*server.receive(hello, HERE).replies)
    answer = server.receive(with_cookie, HERE).replies
    for number in range(4 * MAX_HANDSHAKES):
        assert len(server.receive(hello, ("203.0.113.1", number)).replies) == 1, "the cookie"
    assert server.beginning == 1
    for each in client.step(*answer):
        answer = server.receive(each, HERE).replies
    client.step(*answer)
    assert server.identity(HERE) == "id-1"


@pytest.mark.parametrize("after", [{}, {"id-1": b"another one"}])
def test_an_association_ends_with_the_key_that_proved_it(after: dict[str, bytes]) -> None:
    keys = dict(KEYS)
    server = DtlsSessions(keys, most=10, clock=lambda: 0.0)
    client, _ = shaken(server)
    keys.pop("id-1")
    keys.update(after)
    assert (server.identity(HERE), server.seal(b"no more", HERE)) == (None, None)
    heard = server.receive(client.seal(b"still me"), HERE)
    assert (heard.messages, heard.has_ended, heard.identity) == ([], True, "id-1")
    (told,) = heard.replies
    assert client.is_told(told)
    assert len(server) == 0


def test_every_association_is_ended_once() -> None:
    server = sessions()
    client, _ = shaken(server)
    ((address, told),) = server.farewells()
    assert (address, client.is_told(told), server.farewells()) == (HERE, True, [])


@pytest.mark.parametrize(
    ("datagram", "count"),
    [
        (b"", 0),
        (b"\x16\xfe\xfd" + bytes(8) + b"\0\1", 0),
        (b"\x16\xfe\xfd" + bytes(8) + b"\0\1x", 1),
        (b"\x17\xfe\xfd" + bytes(8) + b"\0\1xy", 1),
        (b"\x17\x03\x03" + bytes(8) + b"\0\1x", 0),
        (b"\x18\xfe\xfd" + bytes(8) + b"\0\1x", 0),
        ((b"\x17\xfe\xfd" + bytes(8) + b"\0\1x") * 40, 16),
    ],
)
def test_records_of_a_datagram(datagram: bytes, count: int) -> None:
    assert len(whole_records(datagram)) == count
