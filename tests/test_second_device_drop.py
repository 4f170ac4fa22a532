"""The device that was written from the page alone lets models go, as the page shows it to the byte."""

import hashlib
import json
import struct

from gatewayd.core.names import parse_device_id
from gatewayd.wire import mqttdevice
from tests.gateway import REPOSITORY
from tests.second_device.bench import ARTIFACT, SECRET, Bench, conversation, push_of
from tests.second_device.flash import Flash, Slot
from tests.second_device.module import trusted

PAGE_TEXT = (REPOSITORY / "docs" / "device-protocol-mqtt.md").read_text()
OTHER = ARTIFACT[::-1]
INSTEAD = push_of(8, model="other", artifact=OTHER, instead=["echo", 1])


def order(
    number: int, *, version: int = 1, model: str = "echo", artifact: bytes = ARTIFACT, last: bool = False
) -> bytes:
    named = {"request": number, "model": model, "version": version, "digest": hashlib.sha256(artifact).hexdigest()}
    return json.dumps(named | ({"last": True} if last else {}), separators=(",", ":")).encode()


DROPS = [
    ("drop", order(287454020, version=2)),
    ("drop", order(287454021)),
    ("drop", order(287454022, last=True)),
    ("drop", order(287454023, last=True)),
]


def pushed(bench: Bench, messages: list[tuple[str, bytes]]) -> dict[str, object]:
    answers = [bench.hear(*each) for each in messages]
    return dict(json.loads(answers[-1][-1][1]))


def held(bench: Bench) -> set[str]:
    return {each.manifest.model for each in bench.agent.flash.slots if each.manifest and each.state == "active"}


def test_the_page_shows_drops_to_the_byte() -> None:
    bench = Bench()
    pushed(bench, push_of(7))
    assert f"```text\n{conversation(bench, DROPS)}```" in PAGE_TEXT


def test_the_page_shows_an_offer_that_another_model_gives_way_to() -> None:
    bench = Bench()
    pushed(bench, push_of(7))
    assert f"```text\n{conversation(bench, INSTEAD[:1])}```" in PAGE_TEXT
    assert bytes.fromhex("0f82646563686f01") in INSTEAD[0][1]


def test_the_gateway_reads_what_the_page_shows() -> None:
    keys = trusted(SECRET.public_key().public_bytes_raw().hex())
    bench = Bench()
    pushed(bench, push_of(7))
    for leaf, payload in [*DROPS, INSTEAD[0]]:
        assert mqttdevice.decode_down(leaf, payload, keys) is not None
        for kind, answer in bench.hear(leaf, payload):
            assert mqttdevice.decode_up(kind, answer, parse_device_id("second")) is not None


def test_a_full_device_swaps_one_model_for_another() -> None:
    bench = Bench()
    pushed(bench, push_of(7))
    ((_, answer),) = bench.hear(*push_of(9, model="other", artifact=OTHER)[0])
    assert json.loads(answer)["reason"] == "no free slot"
    for message in INSTEAD[:-1]:
        bench.hear(*message)
        assert held(bench) == {"echo"}
    assert pushed(bench, INSTEAD[-1:]) == {"push": 8, "phase": "accepted"}
    assert held(bench) == {"other"}


def test_a_push_that_is_cancelled_leaves_what_would_have_gone() -> None:
    bench = Bench()
    pushed(bench, push_of(7))
    for message in INSTEAD[:-1]:
        bench.hear(*message)
    bench.hear("drop", order(1, last=True))
    assert held(bench) == {"echo"}
    bench.hear("cancel", b'{"push":8}')
    assert held(bench) == {"echo"}


def test_the_slot_that_leaves_is_known_after_a_restart() -> None:
    flash = Flash()
    before = Bench(flash)
    pushed(before, push_of(7))
    for message in INSTEAD[:-1]:
        before.hear(*message)
    after = Bench(flash)
    assert pushed(after, INSTEAD[-1:]) == {"push": 8, "phase": "accepted"}
    assert held(after) == {"other"}


def test_another_version_does_not_give_way() -> None:
    bench = Bench()
    pushed(bench, push_of(7, version=2))
    ((_, answer),) = bench.hear(*INSTEAD[0])
    assert json.loads(answer)["reason"] == "instead of echo@1: version 2 is there"


def test_of_several_models_one_goes() -> None:
    bench = Bench(Flash(slots=[Slot(), Slot(), Slot()]))
    pushed(bench, push_of(7))
    pushed(bench, push_of(8, model="other", artifact=OTHER))
    ((_, answer),) = bench.hear("drop", order(5))
    assert json.loads(answer) == {"request": 5, "status": "dropped"}
    assert held(bench) == {"other"}
    ((_, answer),) = bench.hear("run", struct.pack("<IBBBBI", 1, 0, 0, 0, 0, 1) + bytes(4))
    assert answer[4] == 1
    assert pushed(bench, push_of(9)) == {"push": 9, "phase": "accepted"}
