import json
from dataclasses import fields

import pytest

from gatewayd.wire.agent_memory import FIXED, PER_SLOT, agent_ram_bytes, buffer_bytes
from gatewayd.wire.agent_terms import AgentState
from tests.agent_bench import make_capabilities
from tests.agent_vectors import FOLDER, VECTORS, text_of


@pytest.mark.parametrize("name", VECTORS)
def test_the_agent_does_as_its_vectors_say(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == text_of(name), "python -m tests.agent_vectors writes them anew"


def test_there_are_no_other_vectors() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(VECTORS)


def test_vectors_hold_every_kind_of_command_that_touches_flash() -> None:
    kinds = {
        command["type"]
        for file in FOLDER.glob("*.json")
        for step in json.loads(file.read_text())["steps"]
        for command in step.get("commands", ())
    }
    assert kinds >= {
        "EraseSlot",
        "WriteSlot",
        "WriteJournal",
        "HashSlot",
        "InflateSlot",
        "RunSelfTest",
        "RunModel",
        "Publish",
    }


def test_every_field_of_the_state_is_counted() -> None:
    assert set(PER_SLOT) | set(FIXED) == {each.name for each in fields(AgentState)} - {"out"}


def test_the_memory_is_as_the_document_says() -> None:
    assert [agent_ram_bytes(count) for count in (2, 3, 8)] == [1583, 1697, 2267]
    assert buffer_bytes(make_capabilities(), 2) == 1028 + 8192 + 256
