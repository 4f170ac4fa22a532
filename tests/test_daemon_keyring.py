from pathlib import Path

from gatewayd.adapters.credentials import open_credentials
from gatewayd.core.credentials import OscoreKey, PreSharedKey
from gatewayd.core.names import DeviceId
from gatewayd.daemon_keyring import Keyring
from gatewayd.wire.lwm2m.credentials import parse_credentials
from gatewayd.wire.topics import Topics

DOOR, CAM = DeviceId("door-1"), DeviceId("cam-9")
FIXED = parse_credentials("cam-7 psk-of-cam-7 00112233445566778899aabbccddeeff\n")


async def test_keys_of_the_file_and_keys_that_are_made_while_it_runs(tmp_path: Path) -> None:
    issued = open_credentials(tmp_path / "credentials", Topics("gatewayd", "gw"))
    keys = Keyring(FIXED, issued)
    owners = keys.owners()
    assert (dict(keys), dict(owners)) == ({"psk-of-cam-7": FIXED[0].key}, {"psk-of-cam-7": "cam-7"})
    await issued.change(lambda known: known.with_key(PreSharedKey(DOOR, b"k" * 16), may_replace=False))
    assert keys["door-1"] == b"k" * 16
    assert dict(owners) == {"psk-of-cam-7": "cam-7", "door-1": "door-1"}
    context = OscoreKey(CAM, b"s" * 16, b"salt", b"kid", b"gw")
    await issued.change(lambda known: known.with_oscore(context, may_replace=False))
    assert owners["oscore/cam-9"] == CAM
    assert CAM in owners.values(), "it must come with it"
    assert {"cam-7", "door-1", "cam-9"} == set(owners.values())
    assert all(each in owners.values() for each in ("cam-7", "door-1"))
    assert "psk-of-cam-7" not in owners.values()
    assert len(owners) == 3
    assert keys.get("oscore/cam-9") is None, "it is no key for DTLS"
    await issued.change(lambda known: known.without(DOOR).without(CAM))
    assert owners.get("oscore/cam-9") is None
    assert keys.get("door-1") is None
    assert owners.get("door-1") is None
    assert (len(keys), len(owners)) == (1, 1)
