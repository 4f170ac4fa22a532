import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.credentials import BrokerUser, Credentials, OscoreKey, PreSharedKey
from gatewayd.core.errors import GatewayError
from gatewayd.core.names import DeviceId
from gatewayd.wire.credential_file import decode_credentials, encode_credentials
from gatewayd.wire.mosquitto import hash_password

HASH = hash_password("secret", bytes(12))
USER = {"name": "door-1", "devices": ["door-1"], "password": HASH, "made_at": 1.0, "who": "ann"}
KEY = {"device": "door-1", "key": "00" * 16}
OSCORE = {"device": "door-1", "secret": "00" * 16, "salt": "00", "kid": "010203", "gateway_id": "6777"}
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True).map(DeviceId)


@given(st.lists(NAMES, unique=True, max_size=5), st.binary(min_size=16, max_size=64))
def test_what_was_written_is_read(names: list[DeviceId], key: bytes) -> None:
    users = tuple(BrokerUser(name, (name, DeviceId("x")), HASH, 1.5, "ann") for name in names)
    oscore = tuple(
        OscoreKey(name, key, b"salt", bytes([number]), b"gw", 3.5, "eve", is_used=bool(number % 2))
        for number, name in enumerate(names)
    )
    known = Credentials(users, tuple(PreSharedKey(name, key, 2.5, "bob") for name in names), tuple(names), oscore)
    assert decode_credentials(encode_credentials(known)) == known


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], "object"),
        ({"users": 7}, "users"),
        ({"users": [7]}, r"users\[0\]: lacks 'name'"),
        ({"users": [USER, {**USER, "name": "a\nb"}]}, r"users\[1\]: cannot be read"),
        ({"users": [{**USER, "password": "plain secret"}]}, r"users\[0\]"),
        ({"users": [{**USER, "made_at": True}]}, r"users\[0\]"),
        ({"users": [{**USER, "devices": ["a/#"]}]}, r"users\[0\]"),
        ({"users": [USER, USER]}, "twice"),
        ({"leaving": [7]}, r"leaving\[0\]"),
        ({"leaving": "door-1"}, "leaving"),
        ({"keys": [{**KEY, "key": "00"}]}, r"keys\[0\]"),
        ({"keys": [{**KEY, "key": "secret"}]}, r"keys\[0\]"),
        ({"oscore": [{**OSCORE, "salt": 7}]}, r"oscore\[0\]"),
        ({"oscore": [{**OSCORE, "secret": "00"}]}, r"oscore\[0\]"),
        ({"oscore": [{**OSCORE, "kid": "6777"}]}, r"oscore\[0\]"),
        ({"oscore": [{**OSCORE, "kid": "00" * 8}]}, r"oscore\[0\]"),
        ({"oscore": [{**OSCORE, "is_used": 1}]}, r"oscore\[0\]"),
        ({"oscore": [OSCORE, {**OSCORE, "device": "door-2"}]}, "kid stands twice"),
    ],
)
def test_a_bad_row_is_named_and_not_repeated(document: object, place: str) -> None:
    with pytest.raises(GatewayError, match=place) as refused:
        decode_credentials(json.dumps(document).encode())
    assert "secret" not in str(refused.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_credentials_or_the_one_error(content: bytes) -> None:
    try:
        decode_credentials(content)
    except GatewayError:
        return
