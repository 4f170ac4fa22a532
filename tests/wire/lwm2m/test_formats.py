"""Every format: what is written is read again, what anybody sends is records or the one error."""

from contextlib import suppress
from math import isnan

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.wire.lwm2m.definitions import NONE, Definitions, ObjectDefinition, Operations, ResourceDefinition
from gatewayd.wire.lwm2m.formats import SINGLE, Format, decode, encode, format_of
from gatewayd.wire.lwm2m.limits import MAX_STRUCTURED_BYTES, MAX_VALUE_BYTES
from gatewayd.wire.lwm2m.objects import STANDARD
from gatewayd.wire.lwm2m.paths import ROOT, Path, parse_path
from gatewayd.wire.lwm2m.values import ObjectLink, Record, Type, Value

TREES = [Format.SENML_JSON, Format.SENML_CBOR, Format.TLV, Format.JSON, Format.LWM2M_CBOR]
VALUES = [*TREES, *sorted(SINGLE)]
KINDS = list(Type)
# One resource of each type, single (0..8) and multiple (10..18).
ALL_TYPES = Definitions(
    [
        ObjectDefinition(
            7,
            "Everything",
            tuple(
                ResourceDefinition(index + 10 * many, kind.name, kind, Operations.READ, is_multiple=bool(many))
                for many in (0, 1)
                for index, kind in enumerate(KINDS)
            ),
            is_multiple=True,
        )
    ]
)
i64, u16 = st.integers(-(2**63), 2**63 - 1), st.integers(0, 65535)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
OF_KIND: dict[Type, st.SearchStrategy[Value]] = {
    Type.STRING: texts,
    Type.INTEGER: i64,
    Type.UNSIGNED: st.integers(0, 2**64 - 1),
    Type.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
    Type.BOOLEAN: st.booleans(),
    Type.OPAQUE: st.binary(max_size=300),
    Type.TIME: i64,
    Type.OBJLNK: st.builds(ObjectLink, u16, u16),
    Type.CORELNK: texts,
}
ids = st.integers(0, 65534)


@st.composite
def trees(draw: st.DrawFn, *, instances: int) -> tuple[Record, ...]:
    records: dict[Path, Value] = {}
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(KINDS))
        at = Path(7, draw(ids) if instances > 1 else 0)
        single = draw(st.booleans())
        path = at / KINDS.index(kind) if single else at / (KINDS.index(kind) + 10) / draw(ids)
        records[path] = draw(OF_KIND[kind])
    return tuple(Record(path, records[path]) for path in sorted(records))


def same(one: Value, other: Value) -> bool:
    return type(one) is type(other) and (one == other or (isinstance(one, float) and isnan(one)))


@pytest.mark.parametrize("format_", TREES)
@settings(deadline=None)
@given(records=trees(instances=1))
def test_what_is_written_of_an_instance_is_read_again(format_: Format, records: tuple[Record, ...]) -> None:
    assert decode(format_, Path(7, 0), encode(format_, Path(7, 0), records, ALL_TYPES), ALL_TYPES) == records


@pytest.mark.parametrize("format_", TREES)
@settings(deadline=None)
@given(records=trees(instances=3))
def test_what_is_written_of_an_object_is_read_again(format_: Format, records: tuple[Record, ...]) -> None:
    assert decode(format_, Path(7), encode(format_, Path(7), records, ALL_TYPES), ALL_TYPES) == records


@pytest.mark.parametrize("format_", VALUES)
@settings(deadline=None)
@given(choice=st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), OF_KIND[kind])))
def test_what_is_written_of_one_resource_is_read_again(format_: Format, choice: tuple[Type, Value]) -> None:
    kind, value = choice
    path = Path(7, 0, KINDS.index(kind))
    if format_ is Format.OPAQUE and kind is not Type.OPAQUE:
        with pytest.raises(BadRequest, match="only bytes"):
            encode(format_, path, [Record(path, value)], ALL_TYPES)
        return
    read = decode(format_, path, encode(format_, path, [Record(path, value)], ALL_TYPES), ALL_TYPES)
    assert [each.path for each in read] == [path]
    assert same(read[0].value, value)


@pytest.mark.parametrize("format_", TREES)
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_what_is_written_of_one_resource_instance_is_read_again(
    format_: Format, kind: Type, data: st.DataObject
) -> None:
    path = Path(7, 3, 10 + KINDS.index(kind), data.draw(ids))
    records = (Record(path, data.draw(OF_KIND[kind])),)
    assert decode(format_, path, encode(format_, path, records, ALL_TYPES), ALL_TYPES) == records
    upper = path.upper(3)
    assert decode(format_, upper, encode(format_, upper, records, ALL_TYPES), ALL_TYPES) == records


@pytest.mark.parametrize("format_", [Format.SENML_JSON, Format.SENML_CBOR, Format.LWM2M_CBOR])
def test_several_objects_travel_together(format_: Format) -> None:
    records = (Record(Path(3, 0, 9), 80), Record(Path(3303, 0, 5700), 21.5))
    assert decode(format_, ROOT, encode(format_, ROOT, records, STANDARD), STANDARD) == records


@pytest.mark.parametrize("format_", [Format.TLV, Format.JSON])
def test_formats_without_a_place_for_several_objects_say_so(format_: Format) -> None:
    with pytest.raises(BadRequest, match="several objects"):
        encode(format_, ROOT, [Record(Path(3, 0, 9), 80)])


@pytest.mark.parametrize("format_", [Format.SENML_JSON, Format.SENML_CBOR])
@pytest.mark.parametrize("time_s", [-30.0, 0.0, 1_700_000_000.5])
def test_senml_keeps_the_time_of_a_measurement(format_: Format, time_s: float) -> None:
    # The same resource at several times: what a device kept while it slept.
    records = (Record(Path(3303, 0, 5700), 20.0, time_s), Record(Path(3303, 0, 5700), 21.0, time_s + 60))
    assert decode(format_, ROOT, encode(format_, ROOT, records, STANDARD), STANDARD) == records


BASES = [ROOT, Path(3), Path(3, 0), Path(3, 0, 0), Path(3, 0, 6, 1), Path(26242, 0), Path(7, 0)]


@pytest.mark.parametrize("format_", [each for each in Format if each is not Format.LINKS])
@settings(deadline=None)
@given(payload=st.binary(max_size=200), base=st.sampled_from(BASES))
@example(payload=b"", base=Path(3, 0))
@example(payload=b"\x81\xa1\x00\x61\x30", base=Path(3, 0))
@example(payload=b"[" * 5000, base=Path(3, 0))
@example(payload=b'[{"n":"0","v":' + b"9" * 4400 + b"}]", base=Path(3, 0))
@example(payload=b'[{"n":"0","v":1e999}]', base=Path(3, 0))
@example(payload=b"\xc4\x82\x1a\x7f\xff\xff\xff\x1a\x7f\xff\xff\xff", base=Path(3, 0, 0))
def test_any_bytes_are_records_below_the_base_or_the_one_error(format_: Format, payload: bytes, base: Path) -> None:
    for definitions in (STANDARD, NONE):
        try:
            records = decode(format_, base, payload, definitions)
        except (BadRequest, TooLarge):
            continue
        assert all(each.path in base and each.path.depth >= 3 for each in records)


@pytest.mark.parametrize("format_", TREES)
@settings(deadline=None)
@given(records=trees(instances=1), data=st.data())
def test_a_damaged_payload_is_records_or_the_one_error(
    format_: Format, records: tuple[Record, ...], data: st.DataObject
) -> None:
    payload = bytearray(encode(format_, Path(7, 0), records, ALL_TYPES))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = payload[: data.draw(st.integers(0, len(payload)))]
    for damaged in (payload, cut):
        with suppress(BadRequest):
            assert all(each.path in Path(7, 0) for each in decode(format_, Path(7, 0), bytes(damaged), ALL_TYPES))


@pytest.mark.parametrize("format_", VALUES)
def test_what_is_too_long_is_not_read(format_: Format) -> None:
    most_bytes = MAX_VALUE_BYTES if format_ in SINGLE else MAX_STRUCTURED_BYTES
    with pytest.raises(TooLarge, match=str(most_bytes)):
        decode(format_, Path(3, 0, 0), b"[" * (most_bytes + 1))


@pytest.mark.parametrize(
    ("format_", "payload"),
    [
        (Format.TLV, b"\xc0\x00" * 3000),
        (Format.SENML_JSON, b"[" + b",".join([b'{"n":"0","v":1}'] * 3000) + b"]"),
        (Format.SENML_CBOR, b"\x99\x0b\xb8" + b"\xa2\x00\x61\x30\x02\x01" * 3000),
        (Format.JSON, b'{"e":[' + b",".join([b'{"n":"0","v":1}'] * 3000) + b"]}"),
    ],
)
def test_a_payload_of_too_many_records_is_refused(format_: Format, payload: bytes) -> None:
    with pytest.raises(BadRequest, match="2048"):
        decode(format_, Path(3, 0), payload)


@pytest.mark.parametrize("format_", TREES)
def test_values_from_elsewhere_are_refused(format_: Format) -> None:
    payload = encode(format_, Path(4, 1), [Record(Path(4, 1, 3), 7)], STANDARD)
    if format_ is Format.TLV:  # it names no object: what it says is said of what was asked for
        assert decode(format_, Path(3, 0), payload) == (Record(Path(3, 0, 3), b"\x07"),)
        payload = encode(format_, Path(4), [Record(Path(4, 1, 3), 7)], STANDARD)
    with pytest.raises(BadRequest):
        decode(format_, Path(3, 0), payload)


@pytest.mark.parametrize("format_", TREES)
def test_no_payload_is_no_records(format_: Format) -> None:
    assert decode(format_, Path(9), b"") == ()


def test_a_value_of_another_type_than_defined_stays_as_it_came() -> None:
    # One strange resource must not cost the whole answer: battery level as text beside a good manufacturer.
    payload = b'[{"bn":"/3/0/","n":"0","vs":"ACME"},{"n":"9","vs":"full"}]'
    read = decode(Format.SENML_JSON, Path(3, 0), payload, STANDARD)
    assert [each.value for each in read] == ["ACME", "full"]
    tlv = decode(Format.TLV, Path(3, 0), b"\xc4\x00ACME\xc3\x09\x01\x02\x03", STANDARD)
    assert [each.value for each in tlv] == ["ACME", b"\x01\x02\x03"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Type.INTEGER, "5"),
        (Type.INTEGER, 2**63),
        (Type.UNSIGNED, -1),
        (Type.STRING, 5),
        (Type.OPAQUE, "x"),
        (Type.BOOLEAN, 2),
    ],
)
@pytest.mark.parametrize("format_", TREES)
def test_what_a_definition_forbids_is_not_written(format_: Format, kind: Type, value: Value) -> None:
    path = Path(7, 0, KINDS.index(kind))
    with pytest.raises(BadRequest, match=f"no {kind.value}"):
        encode(format_, path, [Record(path, value)], ALL_TYPES)


@pytest.mark.parametrize(
    "records",
    [
        [Record(Path(4, 0, 0), 1)],
        [Record(Path(3, 0), 1)],
        [Record(Path(3, 0, 9), 1), Record(Path(3, 0, 9), 2)],
        [Record(Path(3, 0, 6), 1), Record(Path(3, 0, 6, 0), 2)],
    ],
    ids=["elsewhere", "no resource", "twice", "both single and multiple"],
)
@pytest.mark.parametrize("format_", TREES)
def test_records_that_contradict_each_other_are_not_written(format_: Format, records: list[Record]) -> None:
    with pytest.raises(BadRequest):
        encode(format_, Path(3, 0), records)


@pytest.mark.parametrize("number", [1541, 1542, 1543, 1544])
def test_numbers_from_before_1_0_are_known(number: int) -> None:
    assert format_of(number) in {Format.TEXT, Format.TLV, Format.JSON, Format.OPAQUE}


@pytest.mark.parametrize("number", [None, -1, 41, 50, 65535])
def test_other_formats_are_none(number: int | None) -> None:
    assert format_of(number) is None


def test_links_hold_no_values() -> None:
    with pytest.raises(BadRequest, match="LINKS"):
        decode(Format.LINKS, Path(3, 0), b"</3/0/0>")
    with pytest.raises(BadRequest, match="LINKS"):
        encode(Format.LINKS, Path(3, 0), [])


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("-5", Type.INTEGER, -5), ("5.0", Type.INTEGER, 5), ("1e3", Type.FLOAT, 1000.0), ("1", Type.BOOLEAN, True),
        ("0", Type.BOOLEAN, False), ("10:3", Type.OBJLNK, ObjectLink(10, 3)), ("aGk=", Type.OPAQUE, b"hi"),
        ("65535:65535", Type.OBJLNK, ObjectLink(65535, 65535)), ("1367491215", Type.TIME, 1367491215),
        ("ACME", Type.STRING, "ACME"), ("</3/0>", Type.CORELNK, "</3/0>"),
        # What is none of its type's values stays text.
        ("five", Type.INTEGER, "five"), ("1e99999", Type.FLOAT, "1e99999"), ("9" * 50, Type.INTEGER, "9" * 50),
        ("yes", Type.BOOLEAN, "yes"), ("1:2:3", Type.OBJLNK, "1:2:3"), ("99999:1", Type.OBJLNK, "99999:1"),
        ("%%", Type.OPAQUE, "%%"), ("\u0663", Type.INTEGER, "\u0663"),
    ],
)  # fmt: skip
def test_plain_text(text: str, kind: Type, value: Value) -> None:
    path = Path(7, 0, KINDS.index(kind))
    (read,) = decode(Format.TEXT, path, text.encode(), ALL_TYPES)
    assert same(read.value, value)


def test_single_formats_need_a_single_value() -> None:
    for format_ in SINGLE:
        with pytest.raises(BadRequest, match="no single value"):
            decode(format_, Path(3, 0), b"\x01")
        with pytest.raises(BadRequest):
            encode(format_, Path(3, 0), [Record(Path(3, 0, 9), 1)])


@settings(deadline=None)
@given(st.lists(ids, max_size=4))
def test_paths_are_written_and_read(numbers: list[int]) -> None:
    path = Path(*numbers)
    assert parse_path(str(path)) == path
    assert path in ROOT
    assert path.depth == len(numbers)


@pytest.mark.parametrize(
    "text", ["/65535", "/3/-1", "/3/0/0/0/0", "/3/ 0", "/٣", "/3//0", "//", "/a", "3/0/9/0/1/", "/" + "0" * 30, "/+3"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_path(text)


def test_a_path_has_no_holes() -> None:
    with pytest.raises(BadRequest):
        Path(3, None, 0)
    with pytest.raises(BadRequest):
        Path(1, 2, 3, 4) / 5
