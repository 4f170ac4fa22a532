import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest, GatewayError
from gatewayd.wire.broker_clients import HEADER, clients_text, parse_clients
from gatewayd.wire.device_credentials import MAX_BYTES, decode_device_credentials
from gatewayd.wire.mosquitto import hash_password

WHOLE = {"device": "door-1", "devices": ["door-1"], "prefix": "gatewayd", "node": "gw", "host": "h", "port": 1}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
LINE = f"ann operator {hash_password('x', bytes(12))}"


@given(
    st.binary(max_size=200)
    | st.fixed_dictionaries({}, optional=dict.fromkeys(WHOLE, JSON)).map(lambda d: json.dumps(d).encode())
)
def test_any_bytes_are_credentials_or_the_one_error(content: bytes) -> None:
    try:
        decode_device_credentials(content)
    except GatewayError:
        return


def test_too_much_is_refused_unread() -> None:
    with pytest.raises(BadRequest, match="over the limit"):
        decode_device_credentials(b" " * (MAX_BYTES + 1))


def test_members_that_are_not_known_are_passed_over() -> None:
    assert decode_device_credentials(json.dumps(WHOLE | {"later": [1]}).encode()).base == "gatewayd/gw/device/door-1"


def test_users_of_the_broker_are_read_as_they_were_written() -> None:
    users = parse_clients(f"{HEADER}\n# ours\n{LINE}\n\n")
    assert [(each.name, each.role) for each in users] == [("ann", "operator")]
    assert parse_clients(clients_text(users)) == users


def test_an_operator_from_before_there_were_admins_is_one() -> None:
    (user,) = before = parse_clients(f"# ours\n{LINE}\n")
    assert (user.name, user.role) == ("ann", "admin")
    assert parse_clients(clients_text(before)) == before


@pytest.mark.parametrize(
    "text", ["ann", "ann boss x", f"{LINE} more", "ann operator plain", LINE.replace("ann", "a/b"), f"{LINE}\n{LINE}"]
)
def test_a_bad_line_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_clients(text)


@given(st.text(max_size=100))
def test_any_text_is_users_or_the_one_error(text: str) -> None:
    try:
        parse_clients(text)
    except GatewayError:
        return
