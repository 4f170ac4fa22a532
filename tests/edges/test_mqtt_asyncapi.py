import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatewayd import __version__
from gatewayd.api.table import VERBS
from gatewayd.core.device import PushPhase
from gatewayd.core.tensor import DType
from gatewayd.edges.mqtt_asyncapi import asyncapi_document, asyncapi_yaml
from gatewayd.edges.mqtt_device_channels import DEVICE_DOWN, DEVICE_UP
from gatewayd.wire import mqttdevice

jsonschema = pytest.importorskip("jsonschema")
REPOSITORY = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = asyncapi_document(VERBS, version=__version__)


def test_the_file_is_what_the_table_says() -> None:
    written = (REPOSITORY / "docs" / "asyncapi.yaml").read_text()
    assert written == asyncapi_yaml(VERBS, version=__version__), "make docs writes it anew"


def test_it_is_valid_by_the_specification() -> None:
    schema = json.loads((REPOSITORY / "tests" / "vectors" / "asyncapi" / "3.0.0.json").read_text())
    document = yaml.safe_load(asyncapi_yaml(VERBS, version=__version__))
    errors = [
        f"{list(each.path)}: {each.message[:300]}" for each in jsonschema.Draft7Validator(schema).iter_errors(document)
    ]
    assert not errors


def test_every_reference_leads_somewhere() -> None:
    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [each for child in value.values() for each in references(child)]
        return [each for child in value for each in references(child)] if isinstance(value, list) else []

    found = references(DOCUMENT)
    assert len(found) > 100
    for reference in found:
        place: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]


def test_every_verb_has_its_channel_its_arguments_and_its_answer() -> None:
    for name, verb in VERBS.items():
        assert DOCUMENT["channels"][f"cmd.{name}"]["address"] == f"{{prefix}}/{{node}}/cmd/{name}"
        operation = DOCUMENT["operations"][name]
        assert operation["action"] == "receive"
        answers = [each["$ref"].rpartition("/")[2] for each in operation["reply"]["messages"]]
        assert answers == [f"{name}.result", "error"]
        assert verb.role.name.lower() in operation["summary"]


def test_examples_of_a_device_fit_their_schemas() -> None:
    page = (REPOSITORY / "docs" / "device-protocol-mqtt.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith('    {"push":7, "phase"')]
    assert len(lines) == len(PushPhase)
    for line in lines:
        report, _ = json.JSONDecoder().raw_decode(line.strip())
        jsonschema.validate(report, DEVICE_UP["push"].schema)
    birth = page[page.index('    {"v":1') : page.index("`slots` is the truth")]
    status = json.loads(birth.replace("<64 hex>", "a" * 64))
    jsonschema.validate(status, DEVICE_UP["status"].schema)
    assert mqttdevice.decode_status(birth.replace("<64 hex>", "a" * 64).encode()) is not None
    jsonschema.validate({"state": "offline"}, DEVICE_UP["status"].schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**status, "abi": "3"}, DEVICE_UP["status"].schema)


def test_the_schemas_know_what_the_wire_knows() -> None:
    properties: Any = DEVICE_UP["push"].schema["properties"]
    assert properties["phase"]["enum"] == [phase.value for phase in PushPhase]
    status: Any = DEVICE_UP["status"].schema["oneOf"]
    assert status[0]["properties"]["sensors"]["items"]["properties"]["dtype"]["enum"] == [each.value for each in DType]
    assert set(DEVICE_DOWN) == {"offer", "chunk", "activate", "accept", "cancel", "run", "sample", "ping", "drop"}
