"""The object definitions for other tools, docs/lwm2m/*.xml: by the rules of OMA's schema for them, and the same as ours.

The rules are those of LWM2M.xsd, version 1.1 (2018-07-10): which elements, in which order, with which values.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from gatewayd.wire.lwm2m.definitions import Operations
from gatewayd.wire.lwm2m.objects import MODEL, RUNTIME, STANDARD
from gatewayd.wire.lwm2m.paths import Path as Place

FOLDER = Path(__file__).parents[3] / "docs" / "lwm2m"
FILES = {RUNTIME: FOLDER / "26241.xml", MODEL: FOLDER / "26242.xml"}

Check = Callable[[str], bool]
INSTANCES, MANDATORY = {"Multiple", "Single"}, {"Mandatory", "Optional"}
TYPES = {"String", "Integer", "Float", "Boolean", "Opaque", "Time", "Objlnk", "Unsigned Integer", "Corelnk", ""}


def text(_: str) -> bool:
    return True


def short(value: str) -> bool:
    return re.fullmatch(r"\s*\+?\d+\s*", value) is not None and int(value) <= 65_535


# Element, whether it must be there, what it may hold; in this order, each once.
OBJECT: list[tuple[str, bool, Check | None]] = [
    ("Name", True, text), ("Description1", True, text), ("ObjectID", True, short), ("ObjectURN", True, text),
    ("LWM2MVersion", False, text), ("ObjectVersion", False, text), ("MultipleInstances", True, INSTANCES.__contains__),
    ("Mandatory", True, MANDATORY.__contains__), ("Resources", True, None), ("Description2", True, text),
]  # fmt: skip
ITEM: list[tuple[str, bool, Check | None]] = [
    ("Name", True, text), ("Operations", True, {"R", "W", "RW", "E", ""}.__contains__),
    ("MultipleInstances", True, INSTANCES.__contains__), ("Mandatory", True, MANDATORY.__contains__),
    ("Type", True, TYPES.__contains__), ("RangeEnumeration", True, text), ("Units", True, text), ("Description", True, text),
]  # fmt: skip


def problems(root: ET.Element) -> Iterator[str]:
    if root.tag != "LWM2M" or len(root) == 0:
        yield "the root is LWM2M with at least one Object"
    for each in root:
        if each.tag != "Object" or set(each.attrib) != {"ObjectType"}:
            yield "an Object has an ObjectType"
        yield from sequence(each, OBJECT)
        resources = each.find("Resources")
        items = [] if resources is None else list(resources)
        if not items:
            yield "Resources has at least one Item"
        for item in items:
            if item.tag != "Item" or set(item.attrib) != {"ID"} or not short(item.attrib.get("ID", "")):
                yield "an Item has an ID of 16 bits"
            yield from sequence(item, ITEM)


def sequence(element: ET.Element, rules: list[tuple[str, bool, Check | None]]) -> Iterator[str]:
    rest = list(element)
    for name, must, check in rules:
        if rest and rest[0].tag == name:
            found = rest.pop(0)
            if check is not None and (len(found) or not check(found.text or "")):
                yield f"{element.tag}.{name}: {found.text!r}"
        elif must:
            yield f"{element.tag}: {name} is missing, or not in its place"
    if rest:
        yield f"{element.tag}: {rest[0].tag} is one too many, or not in its place"


@pytest.mark.parametrize("file", FILES.values(), ids=lambda file: file.name)
def test_it_keeps_the_rules_of_the_schema(file: Path) -> None:
    root = ET.parse(file).getroot()  # noqa: S314 - our own file
    assert list(problems(root)) == []
    location = root.attrib["{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation"]
    assert location.endswith("/LWM2M-v1_1.xsd")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<Operations>R</Operations>", "<Operations>RE</Operations>"),
        ("<Type>Integer</Type>", "<Type>Int</Type>"),
        ("<Units>B</Units>", ""),
        ("<ObjectID>26241</ObjectID>", "<ObjectID>99999</ObjectID>"),
        ('<Item ID="1">', '<Item ID="x">'),
        ("<Mandatory>Optional</Mandatory>\n    <Resources>", "<Resources>"),
        ("<Description2/>", "<Description2/><Description3/>"),
        ("<Name>ML Runtime</Name>\n", ""),
        ('ObjectType="MODefinition"', ""),
    ],
)
def test_a_broken_one_would_be_found(old: str, new: str) -> None:
    broken = FILES[RUNTIME].read_text()
    assert old in broken
    root = ET.fromstring(broken.replace(old, new, 1))  # noqa: S314 - our own file
    assert list(problems(root))


@pytest.mark.parametrize(("object_id", "file"), FILES.items(), ids=str)
def test_it_says_what_the_program_does(object_id: int, file: Path) -> None:
    root = ET.parse(file).getroot()  # noqa: S314 - our own file
    ours = STANDARD.object(object_id)
    assert ours is not None
    assert root.findtext("Object/ObjectID") == str(object_id)
    assert root.findtext("Object/ObjectURN") == f"urn:oma:lwm2m:x:{object_id}"
    assert root.findtext("Object/ObjectVersion") == ours.version == "1.0"
    assert root.findtext("Object/Name") == ours.name
    assert root.findtext("Object/MultipleInstances") == ("Multiple" if ours.is_multiple else "Single")
    items = {int(each.attrib["ID"]): each for each in root.iter("Item")}
    assert list(items) == [each.id for each in ours.resources]
    letters = {Operations.READ: "R", Operations.WRITE: "W", Operations.EXECUTE: "E"}
    for each in ours.resources:
        item = items[each.id]
        assert item.findtext("Name") == each.name
        assert item.findtext("Operations") == "".join(letters[one] for one in each.operations)
        assert item.findtext("MultipleInstances") == ("Multiple" if each.is_multiple else "Single")
        assert item.findtext("Mandatory") == ("Mandatory" if each.is_mandatory else "Optional")
        assert item.findtext("Type") == ("" if each.kind is None else each.kind.value)
        assert item.findtext("Units") == each.units
        assert item.findtext("Description")


def test_both_are_where_vendors_may_reuse_numbers() -> None:
    assert all(26_241 <= each <= 32_768 for each in FILES)


def test_definitions_are_found_by_path() -> None:
    found = STANDARD.resource(Place(3303, 1, 5700))
    assert found is not None
    assert found.name == "Sensor Value"
    assert STANDARD.resource(Place(3)) is None
    assert STANDARD.object(9999) is None
    assert STANDARD.kind(Place(9999, 0, 1)) is None
    assert STANDARD.is_multiple(Place(9999, 0, 1, 2))
