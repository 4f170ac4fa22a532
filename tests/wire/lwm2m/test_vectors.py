"""Examples of the OMA specification and of RFC 8428, and what devices make of them."""

import json

import cbor2
import pytest

from gatewayd.core.errors import BadRequest
from gatewayd.wire.lwm2m.definitions import Definitions, ObjectDefinition, Operations, ResourceDefinition
from gatewayd.wire.lwm2m.formats import Format, decode, encode
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.paths import ROOT, Path
from gatewayd.wire.lwm2m.senml import (
    decode_names_cbor,
    decode_names_json,
    encode_names_cbor,
    encode_names_json,
)
from gatewayd.wire.lwm2m.values import ObjectLink, Record, Type, Value

R = Operations.READ
# Objects of the specification's examples: Access Control (/2), and the two with object links of figure 28.
EXAMPLES = STANDARD | Definitions(
    [
        ObjectDefinition(
            2, "Access Control",
            (ResourceDefinition(0, "Object", Type.INTEGER, R), ResourceDefinition(1, "Instance", Type.INTEGER, R),
             ResourceDefinition(2, "ACL", Type.INTEGER, R, is_multiple=True), ResourceDefinition(3, "Owner", Type.INTEGER, R)),
            is_multiple=True,
        ),
        ObjectDefinition(
            65, "Links", (ResourceDefinition(0, "", Type.OBJLNK, R, is_multiple=True), ResourceDefinition(1, "", Type.STRING, R),
                          ResourceDefinition(2, "", Type.INTEGER, R)),
        ),
        ObjectDefinition(
            66, "Services", (ResourceDefinition(0, "", Type.STRING, R), ResourceDefinition(1, "", Type.STRING, R),
                             ResourceDefinition(2, "", Type.OBJLNK, R)), is_multiple=True,
        ),
    ]
)  # fmt: skip
DEVICE: dict[str, Value] = {
    "/3/0/0": "Open Mobile Alliance", "/3/0/1": "Lightweight M2M Client", "/3/0/2": "345000123", "/3/0/3": "1.0", "/3/0/6/0": 1,
    "/3/0/6/1": 5, "/3/0/7/0": 3800, "/3/0/7/1": 5000, "/3/0/8/0": 125, "/3/0/8/1": 900, "/3/0/9": 100, "/3/0/10": 15,
    "/3/0/11/0": 0, "/3/0/13": 1367491215, "/3/0/14": "+02:00", "/3/0/16": "U",
}  # fmt: skip
DEVICE_TLV = """
C8 00 14 4F 70 65 6E 20 4D 6F 62 69 6C 65 20 41 6C 6C 69 61 6E 63 65
C8 01 16 4C 69 67 68 74 77 65 69 67 68 74 20 4D 32 4D 20 43 6C 69 65 6E 74
C8 02 09 33 34 35 30 30 30 31 32 33  C3 03 31 2E 30  86 06 41 00 01 41 01 05  88 07 08 42 00 0E D8 42 01 13 88
87 08 41 00 7D 42 01 03 84  C1 09 64  C1 0A 0F  83 0B 41 00 00  C4 0D 51 82 42 8F  C6 0E 2B 30 32 3A 30 30  C1 10 55
"""
ACL: dict[str, Value] = {
    "/2/0/0": 1, "/2/0/1": 0, "/2/0/2/127": 7, "/2/0/3": 127, "/2/2/0": 3, "/2/2/1": 0, "/2/2/2/127": 7, "/2/2/2/310": 1,
    "/2/2/3": 127,
}  # fmt: skip
LINKS: dict[str, Value] = {
    "/65/0/0/0": ObjectLink(66, 0), "/65/0/0/1": ObjectLink(66, 1), "/65/0/1": "8613800755500", "/65/0/2": 0x12345678,
}  # fmt: skip
SERVICES: dict[str, Value] = {
    "/66/0/0": "myService 1", "/66/0/1": "Internet.15.234", "/66/0/2": ObjectLink(67, 0), "/66/1/0": "myService 2",
    "/66/1/1": "Internet.15.235", "/66/1/2": ObjectLink(65535, 65535),
}  # fmt: skip
TLV = [
    ("/3/0", DEVICE_TLV, DEVICE),
    ("/3", "08 00 79" + DEVICE_TLV, DEVICE),
    (
        "/2",
        "08 00 0E C1 00 01 C1 01 00 83 02 41 7F 07 C1 03 7F 08 02 12 C1 00 03 C1 01 00 87 02 41 7F 07 61 01 36 01 C1 03 7F",
        ACL,
    ),
    (
        "/1",
        "08 00 0F C1 00 01 C4 01 00 01 51 80 C1 06 01 C1 07 55",
        {"/1/0/0": 1, "/1/0/1": 86400, "/1/0/6": True, "/1/0/7": "U"},
    ),
    (
        "/65/0",
        "88 00 0C 44 00 00 42 00 00 44 01 00 42 00 01 C8 01 0D 38 36 31 33 38 30 30 37 35 35 35 30 30 C4 02 12 34 56 78",
        LINKS,
    ),
    (
        "/66",
        """08 00 26 C8 00 0B 6D 79 53 65 72 76 69 63 65 20 31 C8 01 0F 49 6E 74 65 72 6E 65 74 2E 31 35 2E 32 33 34
           C4 02 00 43 00 00
           08 01 26 C8 00 0B 6D 79 53 65 72 76 69 63 65 20 32 C8 01 0F 49 6E 74 65 72 6E 65 74 2E 31 35 2E 32 33 35
           C4 02 FF FF FF FF""",
        SERVICES,
    ),
]  # fmt: skip


def place(text: str) -> Path:
    return Path(*(int(each) for each in text.strip("/").split("/")))


def found(records: tuple[Record, ...]) -> dict[str, Value]:
    return {str(each.path): each.value for each in records}


def records_of(values: dict[str, Value]) -> list[Record]:
    return [Record(place(path), value) for path, value in values.items()]


@pytest.mark.parametrize(("base", "octets", "values"), TLV, ids=[each[0] for each in TLV])
def test_tlv_examples_of_the_specification(base: str, octets: str, values: dict[str, Value]) -> None:
    """OMA LwM2M 1.0.2, section 6.4.3 (figures 24 to 28)."""
    payload = bytes.fromhex(octets)
    assert found(decode(Format.TLV, place(base), payload, EXAMPLES)) == values
    if base != "/1":  # its lifetime is written in four bytes, ours in as many as it needs: the same
        assert encode(Format.TLV, place(base), records_of(values), EXAMPLES) == payload


def test_tlv_of_an_object_may_leave_its_only_instance_out() -> None:
    assert found(decode(Format.TLV, place("/3"), bytes.fromhex(DEVICE_TLV), EXAMPLES)) == DEVICE


def test_tlv_of_an_instance_may_name_it_once_more() -> None:
    payload = bytes.fromhex("08 00 79" + DEVICE_TLV)
    assert found(decode(Format.TLV, place("/3/0"), payload, EXAMPLES)) == DEVICE
    with pytest.raises(BadRequest, match="belong"):
        decode(Format.TLV, place("/3/1"), payload, EXAMPLES)


@pytest.mark.parametrize(
    ("base", "octets", "values"),
    [
        ("/3/0/0", "C4 00 41 43 4D 45", {"/3/0/0": "ACME"}),
        ("/3/0/6", "86 06 41 00 01 41 01 05", {"/3/0/6/0": 1, "/3/0/6/1": 5}),
        ("/3/0/6", "41 00 01 41 01 05", {"/3/0/6/0": 1, "/3/0/6/1": 5}),  # without the resource around them
        ("/3/0/6/1", "41 01 05", {"/3/0/6/1": 5}),
        ("/3/0/6/1", "83 06 41 01 05", {"/3/0/6/1": 5}),
        ("/3303/0/5700", "E4 16 44 41 AC 00 00", {"/3303/0/5700": 21.5}),  # four bytes of a float, and a long id
        ("/3/0", "", {}),
    ],
)
def test_tlv_of_less_than_an_instance(base: str, octets: str, values: dict[str, Value]) -> None:
    assert found(decode(Format.TLV, place(base), bytes.fromhex(octets), STANDARD)) == values


@pytest.mark.parametrize(
    "octets",
    [
        "C8", "C8 00", "C8 00 05 41", "E0 00", "C1 09", "86 06 41 00", "86 06 C1 00 01", "08 00 03 08 00 00", "08 00 03 41 00 01",
        "D8 00 FF FF FF 41", "86 06 86 06 00", "61 01",
    ],
)  # fmt: skip
def test_tlv_that_does_not_add_up_is_refused(octets: str) -> None:
    with pytest.raises(BadRequest):
        decode(Format.TLV, place("/3/0"), bytes.fromhex(octets), STANDARD)


# OMA LwM2M 1.0.2, section 6.4.4, with the specification's own base names and times.
LWM2M_JSON = [
    (
        "/3/0",
        """{"bn":"/3/0/","e":[{"n":"0","sv":"Open Mobile Alliance"},{"n":"1","sv":"Lightweight M2M Client"},
           {"n":"2","sv":"345000123"},{"n":"3","sv":"1.0"},{"n":"6/0","v":1},{"n":"6/1","v":5},{"n":"7/0","v":3800},{"n":"7/1","v":5000},
           {"n":"8/0","v":125},{"n":"8/1","v":900},{"n":"9","v":100},{"n":"10","v":15},{"n":"11/0","v":0},{"n":"13","v":1367491215},
           {"n":"14","sv":"+02:00"},{"n":"16","sv":"U"}]}""",
        DEVICE,
    ),
    (
        "/66",
        """{"bn":"/66/","e":[{"n":"0/0","sv":"myService 1"},{"n":"0/1","sv":"Internet.15.234"},{"n":"0/2","ov":"67:0"},
           {"n":"1/0","sv":"myService 2"},{"n":"1/1","sv":"Internet.15.235"},{"n":"1/2","ov":"65535:65535"}]}""",
        SERVICES,
    ),
    ("/3/0/0", '{"bn":"/3/0/0","e":[{"sv":"ACME"}]}', {"/3/0/0": "ACME"}),
]  # fmt: skip


@pytest.mark.parametrize(("base", "text", "values"), LWM2M_JSON, ids=[each[0] for each in LWM2M_JSON])
def test_json_examples_of_the_specification(base: str, text: str, values: dict[str, Value]) -> None:
    assert found(decode(Format.JSON, place(base), text.encode(), EXAMPLES)) == values
    assert json.loads(encode(Format.JSON, place(base), records_of(values), EXAMPLES)) == json.loads(text)


def test_json_opaque_values_are_base64_and_numbers_may_be_texts() -> None:
    text = b'{"bn":"/26242/0/","e":[{"n":"3","sv":"q6s="},{"n":"2","sv":"7"},{"n":"8","sv":"1.5"},{"n":"1","sv":"7"}]}'
    read = found(decode(Format.JSON, place("/26242/0"), text, STANDARD))
    assert list(read.values()) == [b"\xab\xab", 7, 1.5, "7"]


def test_json_measurements_have_times() -> None:
    text = b'{"bn":"/72/","bt":25462634,"e":[{"n":"1/2","v":22.4,"t":-5},{"n":"1/2","v":22.9,"t":-30},{"n":"1/2","v":24.1}]}'
    read = decode(Format.JSON, Path(72), text)
    assert [(each.value, each.time_s) for each in read] == [(22.4, 25462629.0), (22.9, 25462604.0), (24.1, 25462634.0)]


@pytest.mark.parametrize(
    "text",
    [
        '{"e":[{"n":"0","sv":"ACME"}]}',  # no base name: below what was asked
        '{"e":[{"n":"/3/0/0","sv":"ACME"}]}',
        '{"e":[{"n":"/0","sv":"ACME"}]}',
        '{"bn":"/3/0","e":[{"n":"0","sv":"ACME"}]}',  # the slash between the two forgotten
        '{"bn":"/3/0","e":[{"n":"/0","sv":"ACME"}]}',
        '{"bn":"/3/0/","e":[{"n":"/0","sv":"ACME"}]}',  # or written twice
        '{"bn":"3/0/","e":[{"n":"0","sv":"ACME"}]}',
        '{"bn":"/","e":[{"n":"3/0/0","sv":"ACME"}]}',
        '{"bn":"/3/0/0","e":[{"sv":"ACME"}]}',
    ],
)
def test_names_as_devices_write_them(text: str) -> None:
    assert found(decode(Format.JSON, place("/3/0"), text.encode(), STANDARD)) == {"/3/0/0": "ACME"}


@pytest.mark.parametrize(
    "text",
    [
        "{}", "[]", '{"e":{}}', '{"e":[1]}', '{"e":[{"n":"0"}]}', '{"e":[{"n":"0","v":1,"sv":"x"}]}', '{"e":[{"n":0,"v":1}]}',
        '{"bn":1,"e":[]}', '{"e":[{"n":"0","v":"1"}]}', '{"e":[{"n":"0","bv":1}]}', '{"e":[{"n":"0","ov":"x"}]}',
        '{"e":[{"n":"0","v":1}],"e":[]}', '{"bt":"x","e":[]}', '{"e":[{"n":"0","v":1,"t":"x"}]}', '{"e":[{"n":"","v":1}]}',
        '{"bn":"/4/0/","e":[{"n":"0","v":1}]}', '{"e":[{"n":"0","v":NaN}]}', '{"e":[{"n":"0","v":1e400}]}',
        '{"e":[{"n":"0","v":99999999999999999999}]}', '{"e":[{"n":"' + "0" * 100 + '","v":1}]}', "{",
    ],
)  # fmt: skip
def test_json_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        decode(Format.JSON, place("/3/0"), text.encode(), STANDARD)


# OMA LwM2M Core 1.1.1, section 7.4.4.
SENML_DEVICE = """[{"bn":"/3/0/","n":"0","vs":"Open Mobile Alliance"},{"n":"1","vs":"Lightweight M2M Client"},
    {"n":"2","vs":"345000123"},{"n":"3","vs":"1.0"},{"n":"6/0","v":1},{"n":"6/1","v":5},{"n":"7/0","v":3800},{"n":"7/1","v":5000},{"n":"8/0","v":125},
    {"n":"8/1","v":900},{"n":"9","v":100},{"n":"10","v":15},{"n":"11/0","v":0},{"n":"13","v":1367491215},{"n":"14","vs":"+02:00"},
    {"n":"16","vs":"U"}]"""


def test_senml_json_example_of_the_specification() -> None:
    assert found(decode(Format.SENML_JSON, place("/3/0"), SENML_DEVICE.encode(), STANDARD)) == DEVICE
    assert json.loads(encode(Format.SENML_JSON, place("/3/0"), records_of(DEVICE), STANDARD)) == json.loads(
        SENML_DEVICE
    )


def test_senml_of_the_two_notations_is_the_same() -> None:
    labels = {"bn": -2, "n": 0, "v": 2, "vs": 3}
    pack = [{labels[key]: value for key, value in each.items()} for each in json.loads(SENML_DEVICE)]
    assert found(decode(Format.SENML_CBOR, place("/3/0"), cbor2.dumps(pack), STANDARD)) == DEVICE
    assert cbor2.loads(encode(Format.SENML_CBOR, place("/3/0"), records_of(DEVICE), STANDARD)) == pack


def test_rfc_8428_example_of_several_points_in_time() -> None:
    # Section 5.1.2, its names made paths: base time, base version, units, relative times.
    text = b"""[{"bn":"/3303/0/","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"5700","u":"V","v":120.1},
        {"n":"5701","t":-5,"vs":"A"},{"n":"5700","t":-4,"v":1.3},{"n":"5700","v":1.7}]"""
    read = decode(Format.SENML_JSON, Path(3303), text, STANDARD)
    assert [(each.path.resource, each.value, each.time_s) for each in read] == [
        (5700, 120.1, 1276020076.001), (5701, "A", 1276020071.001), (5700, 1.3, 1276020072.001), (5700, 1.7, 1276020076.001),
    ]  # fmt: skip


def test_rfc_8428_base_values_hold_until_they_are_set_again() -> None:
    # A resolved pack and one with bases say the same (section 4.6); a base value is added (section 4.1).
    based = (
        b'[{"bn":"/3303/0/","bv":20,"n":"5700","v":1.5},{"n":"5601","v":-1},{"bn":"/3303/1/","bv":0,"n":"5700","v":4}]'
    )
    plain = b'[{"n":"/3303/0/5700","v":21.5},{"n":"/3303/0/5601","v":19},{"n":"/3303/1/5700","v":4}]'
    assert decode(Format.SENML_JSON, ROOT, based, STANDARD) == decode(Format.SENML_JSON, ROOT, plain, STANDARD)
    alone = b'[{"bn":"/3303/0/"},{"bt":100},{"n":"5700","v":1.5}]'  # bases may have a record of their own
    assert decode(Format.SENML_JSON, ROOT, alone, STANDARD) == (Record(Path(3303, 0, 5700), 1.5, 100.0),)


def test_rfc_8428_data_values() -> None:
    read = decode(Format.SENML_JSON, Path(26242, 0), b'[{"n":"/26242/0/6","vd":"aGkgCg"}]', STANDARD)
    assert read[0].value == b"hi \n"


def test_rfc_8428_cbor_example() -> None:
    # Section 6: integer labels, a half float, a decimal fraction, an indefinite array; names made paths.
    pack = bytes.fromhex("9f a3 21 67 2f 33 33 30 33 2f 30 00 65 2f 35 37 30 30 02 f9 4d 60 ff".replace(" ", ""))
    assert found(decode(Format.SENML_CBOR, Path(3303, 0), pack, STANDARD)) == {"/3303/0/5700": 21.5}
    fraction = cbor2.dumps([{0: "/3303/0/5700", 2: cbor2.CBORTag(4, [-1, 215])}])
    assert found(decode(Format.SENML_CBOR, ROOT, fraction, STANDARD)) == {"/3303/0/5700": 21.5}


@pytest.mark.parametrize(
    "text",
    [
        '[{"bver":11,"n":"/3/0/9","v":1}]', '[{"n":"/3/0/9","v":1,"new_":2}]', '[{"n":"/3/0/9"}]', '[{"n":"/3/0","v":1}]',
        "{}", "[1]",
        '[{"n":"/3/0/9","v":1,"vs":"x"}]', '[{"n":"/3/0/9","v":"1"}]', '[{"n":"/3/0/9","v":true}]', '[{"n":5,"v":1}]',
        '[{"n":"/3/0/9","vb":1}]', '[{"n":"/3/0/9","vd":"%"}]', '[{"n":"/3/0/9","vlo":"x"}]', '[{"n":"/3/0/9","t":"x","v":1}]',
        '[{"n":"9","v":1}]', '[{"n":"/3/0/9","v":1,"v":2}]', '[{"bver":"x","n":"/3/0/9","v":1}]', '[{"n":"/3/0/9","s":5}]',
    ],
)  # fmt: skip
def test_senml_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        decode(Format.SENML_JSON, ROOT, text.encode(), STANDARD)


def test_composite_reads_name_their_paths() -> None:
    paths = (Path(3, 0, 9), Path(4), Path(26241, 0, 17, 1))
    assert decode_names_json(encode_names_json(paths)) == paths
    assert decode_names_cbor(encode_names_cbor(paths)) == paths
    assert json.loads(encode_names_json(paths)) == [{"n": "/3/0/9"}, {"n": "/4"}, {"n": "/26241/0/17/1"}]
    for nonsense in (b"{}", b'[{"n":"x"}]', b"[1]"):
        with pytest.raises(BadRequest):
            decode_names_json(nonsense)
    with pytest.raises(BadRequest):
        decode_names_cbor(b"\xa0")


@pytest.mark.parametrize(
    "tree",
    [
        {3: {0: {0: "ACME", 6: {0: 1, 1: 5}}}},
        {(3, 0): {0: "ACME", (6, 0): 1, (6, 1): 5}},
        {(3, 0, 0): "ACME", (3, 0, 6): {0: 1, 1: 5}},
        {(3,): {(0,): {(0,): "ACME"}}, (3, 0, 6, 0): 1, (3, 0, 6, 1): 5},
    ],
    ids=["nested", "instance first", "flat", "mixed"],
)
def test_lwm2m_cbor_keys_hold_one_level_or_several(tree: dict[object, object]) -> None:
    """OMA LwM2M Core 1.2.2, section 7.4.6."""
    values = {"/3/0/0": "ACME", "/3/0/6/0": 1, "/3/0/6/1": 5}
    assert found(decode(Format.LWM2M_CBOR, place("/3/0"), cbor2.dumps(tree), STANDARD)) == values


def test_lwm2m_cbor_with_maps_of_unsaid_length() -> None:
    # As clients write it that do not know beforehand how much comes: {3: {0: {0: "ACME", 13: 1(1367491215), 22: {0: "10:3"}}}}.
    payload = bytes.fromhex(
        "bf 03 bf 00 bf 00 7f 62 4143 62 4d45 ff 0d c1 1a 5182428f 16 bf 00 64 31303a33 ff ff ff ff"
    )
    values = {"/3/0/0": "ACME", "/3/0/13": 1367491215, "/3/0/22/0": ObjectLink(10, 3)}
    assert found(decode(Format.LWM2M_CBOR, place("/3/0"), payload, STANDARD)) == values
    assert encode(Format.LWM2M_CBOR, place("/3/0"), records_of({"/3/0/13": 5}), STANDARD) == bytes.fromhex(
        "a103a100a10dc105"
    )


@pytest.mark.parametrize(
    "tree",
    [{3: 1}, {3: {0: 1}}, {"3": {0: {0: 1}}}, {4: {0: {0: 1}}}, {3: {0: {0: [1]}}}, {3: {0: {0: None}}}, {(3, 0, 0, 0, 0): 1},
     {(): 1}, {3: {0: {6: {0: {0: 1}}}}}, {-3: {0: {0: 1}}}, {70000: {0: {0: 1}}}, [1], 1],
)  # fmt: skip
def test_lwm2m_cbor_that_makes_no_sense_is_refused(tree: object) -> None:
    with pytest.raises(BadRequest):
        decode(Format.LWM2M_CBOR, place("/3/0"), cbor2.dumps(tree), STANDARD)
