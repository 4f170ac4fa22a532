import pytest

from gatewayd.core.errors import BadRequest
from gatewayd.core.names import DeviceId
from gatewayd.wire.lwm2m.credentials import Credential, parse_credentials


def test_a_file() -> None:
    text = "# keys\n\ndoor-1 id-1 736563726574\ncam-7\turn:dev:7  00112233\n"
    assert parse_credentials(text) == (
        Credential(DeviceId("door-1"), "id-1", b"secret"),
        Credential(DeviceId("cam-7"), "urn:dev:7", bytes.fromhex("00112233")),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("door-1 id-1", "line 1: must be an endpoint name, an identity and a key in hex"),
        ("\ndoor-1 id-1 xyz", "line 2: the key is not in hex"),
        ("door-1 id-1 00", "line 1: a key has 4 to 64 bytes"),
        ("do/or id-1 00112233", "line 1: 'do/or' is no device id"),
        ("a i 00112233\nb i 00112233", "identity i stands twice"),
        ("a i 00112233\na j 00112233", "device a stands twice"),
        ("a \x7f 00112233", "line 1: an identity has 1 to 128 printable characters"),
    ],
)
def test_what_is_wrong_is_named_without_the_key(text: str, problem: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_credentials(text)
    assert problem in str(caught.value)
    assert "00112233" not in str(caught.value)
