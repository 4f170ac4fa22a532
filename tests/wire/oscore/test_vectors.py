"""The vectors of RFC 8613, appendix C."""

from dataclasses import dataclass

import pytest

from gatewayd.core.errors import Forbidden
from gatewayd.wire.oscore.context import Asked, Material, Sealed, SecurityContext, additional, derived, nonce
from gatewayd.wire.oscore.header import Header, decode_header

SECRET, SALT = bytes.fromhex("0102030405060708090a0b0c0d0e0f10"), bytes.fromhex("9e7ca92223786340")
ID_CONTEXT = bytes.fromhex("37cbf3210017a2d3")
C1_CLIENT = Material(SECRET, SALT, b"", b"\x01")
C1_SERVER = Material(SECRET, SALT, b"\x01", b"")
C2_CLIENT = Material(SECRET, b"", b"\x00", b"\x01")
C3_CLIENT = Material(SECRET, SALT, b"", b"\x01", ID_CONTEXT)


@pytest.mark.parametrize(
    ("material", "sender_key", "recipient_key", "common_iv"),
    [
        (
            C1_CLIENT,
            "f0910ed7295e6ad4b54fc793154302ff",
            "ffb14e093c94c9cac9471648b4f98710",
            "4622d4dd6d944168eefb54987c",
        ),
        (
            C2_CLIENT,
            "321b26943253c7ffb6003b0b64d74041",
            "e57b5635815177cd679ab4bcec9d7dda",
            "be35ae297d2dace910c52e99f9",
        ),
        (
            C3_CLIENT,
            "af2a1300a5e95788b356336eeecd2b92",
            "e39a0c7c77b43f03b4b39ab9a268699f",
            "2ca58fb85ff1b81c0b7181b85e",
        ),
    ],
    ids=["C.1", "C.2", "C.3"],
)
def test_keys(material: Material, sender_key: str, recipient_key: str, common_iv: str) -> None:
    assert derived(material, material.sender_id, "Key", 16).hex() == sender_key
    assert derived(material, material.recipient_id, "Key", 16).hex() == recipient_key
    assert derived(material, b"", "IV", 13).hex() == common_iv


@dataclass(frozen=True)
class Question:
    material: Material
    nonce: str
    additional: str
    option: str
    payload: str


@pytest.mark.parametrize(
    "vector",
    [
        Question(
            C1_CLIENT,
            "4622d4dd6d944168eefb549868",
            "8368456e63727970743040488501810a40411440",
            "0914",
            "612f1092f1776f1c1668b3825e",
        ),
        Question(
            C2_CLIENT,
            "bf35ae297d2dace910c52e99ed",
            "8368456e63727970743040498501810a4100411440",
            "091400",
            "4ed339a5a379b0b8bc731fffb0",
        ),
        Question(
            C3_CLIENT,
            "2ca58fb85ff1b81c0b7181b84a",
            "8368456e63727970743040488501810a40411440",
            "19140837cbf3210017a2d3",
            "72cd7273fd331ac45cffbe55c3",
        ),
    ],
    ids=["C.4", "C.5", "C.6"],
)
def test_questions(vector: Question) -> None:
    material = vector.material
    sealed, asked = SecurityContext(material).seal_question(20, bytes.fromhex("01b3747631"))
    assert (sealed.option.hex(), sealed.payload.hex()) == (vector.option, vector.payload)
    assert additional(asked).hex() == vector.additional
    common_iv = derived(material, b"", "IV", 13)
    assert nonce(common_iv, asked.kid, asked.partial_iv).hex() == vector.nonce
    other = Material(SECRET, material.master_salt, material.recipient_id, material.sender_id, material.id_context)
    header = decode_header(sealed.option)
    assert SecurityContext(other).open_question(header, sealed.payload) == (bytes.fromhex("01b3747631"), asked)


@pytest.mark.parametrize(
    ("number", "option", "payload"),
    [
        (None, "", "dbaad1e9a7e7b2a813d3c31524378303cdafae119106"),
        (0, "0100", "4d4c13669384b67354b2b6175ff4b8658c666a6cf88e"),
    ],
    ids=["C.7", "C.8"],
)
def test_answers(number: int | None, option: str, payload: str) -> None:
    asked, plaintext = Asked(b"", b"\x14"), bytes.fromhex("45ff48656c6c6f20576f726c6421")
    sealed = SecurityContext(C1_SERVER).seal_answer(asked, plaintext, number=number)
    assert sealed == Sealed(bytes.fromhex(option), bytes.fromhex(payload))
    assert SecurityContext(C1_CLIENT).open_answer(asked, decode_header(sealed.option), sealed.payload) == plaintext


def test_an_answer_to_another_question_is_not_opened() -> None:
    sealed = SecurityContext(C1_SERVER).seal_answer(Asked(b"", b"\x14"), b"\x45")
    with pytest.raises(Forbidden):
        SecurityContext(C1_CLIENT).open_answer(Asked(b"", b"\x15"), Header(), sealed.payload)


@pytest.mark.parametrize("ids", [(b"", b""), (b"12345678", b"1")])
def test_ids_that_cannot_be(ids: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="at most 7 bytes"):
        SecurityContext(Material(SECRET, SALT, *ids))
