from typing import get_args

import pytest
from pydantic import BaseModel

from gatewayd.api.devices import DesiredRow, DeviceList, DeviceRow, LinkRow, SlotRow
from gatewayd.api.inference import CostsRow, OutputRow
from gatewayd.api.keys import ExportedKeys, KeyList, KeyRow
from gatewayd.api.models import ModelList
from gatewayd.api.node import AcceleratorRow, QuarantineRow, Status, WorkerRow
from gatewayd.api.pushes import PushList
from gatewayd.api.streams import StreamList, StreamRow
from gatewayd.api.table import VERBS
from gatewayd.cli import verbs as _verbs  # noqa: F401 - it teaches `text_of` all results
from gatewayd.cli.tables import size_text, text_of


def test_nothing_there_says_what_to_do() -> None:
    assert text_of(ModelList(models=[])) == "no models yet: gatewayd models add NAME --file FILE"
    assert text_of(DeviceList(devices=[])) == "no device was ever seen"


def test_what_has_no_layout_is_names_and_values() -> None:
    output = OutputRow(name="y", datatype="INT8", shape=[1], data=[3])
    assert text_of(output) == "name: y\ndatatype: INT8\nshape: [1]\ndata: [3]"
    assert text_of(CostsRow(latency_ms=None, energy_uj=1.5, link_bytes=2, failure=0)).startswith("latency_ms: -\n")


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (18432, "18.0 KiB")])
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_device_shows_what_is_wanted_and_why_it_is_left_alone() -> None:
    wishes = [
        DesiredRow(model="kws", version=2, who="ann", failures=4, settled="given up after 4 tries: digest differs"),
        DesiredRow(model="vww", version=1, who="ann", failures=0, settled=""),
    ]
    device = DeviceRow(
        device="cam-7", approved=True, online=True, board=None, battery=None,
        link=LinkRow(kind="mqtt", rtt_ms=1, goodput_bytes_per_s=1, loss=0),
        slots=[SlotRow(slot=0, state="active", model="vww", version=1)], desired=[], running=0, note="approved by ann",
        wishes=wishes, one_slot=True, quarantine="5 pushes in a row failed",
    )  # fmt: skip
    shown = text_of(DeviceList(devices=[device]))
    assert shown.endswith(
        "approved by ann; QUARANTINE: 5 pushes in a row failed; pushes to its one slot are allowed; "
        "wants kws@2 (given up after 4 tries: digest differs)"
    )


def test_pushes_and_keys() -> None:
    assert text_of(PushList(pushes=[])) == "nothing was pushed yet"
    key = KeyRow(key="0" * 16, state="signing", made_at="2026-01-01T00:00:00+00:00", public_key="ab" * 32)
    assert "signing" in text_of(KeyList(keys=[key]))
    assert text_of(ExportedKeys(format="hex", text=f"{'ab' * 32}\n", keys=["0" * 16])) == "ab" * 32


def test_status_tells_what_is_loaded_quarantined_and_there() -> None:
    status = Status(
        node="edge", version="1", uptime_s=1, mqtt_connected=True, models=1, versions=1, devices=0, devices_online=0,
        devices_waiting=0, live_pushes=0, pushes=[],
        workers=[
            WorkerRow(variant="tflite-int8", digest="a" * 64, engine="tpu", pid=None, waiting=2, compute_ms=0.25)
        ],
        quarantined=[QuarantineRow(digest="b" * 64, reason="SIGSEGV")],
        accelerators=[AcceleratorRow(kind="edgetpu", detail="USB", missing=["libedgetpu.so.1"])],
    )  # fmt: skip
    lines = text_of(status).splitlines()
    assert lines[4:7] == ["quarantined bbbbbbbbbbbb: SIGSEGV", "edgetpu: USB (missing: libedgetpu.so.1)", ""]
    assert lines[8].split() == ["tflite-int8", "aaaaaaaaaaaa", "tpu", "-", "2", "0.250", "ms"]


def nests(annotation: object) -> bool:
    """Return whether a value of the type is, or holds, a record of its own."""
    is_one = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return is_one or any(nests(each) for each in get_args(annotation))


def test_a_result_that_holds_rows_has_a_layout() -> None:
    """Else people are shown how Python spells them."""
    results = {verb.result for verb in VERBS.values() if text_of.dispatch(verb.result) is text_of.dispatch(object)}
    assert not {
        each.__name__ for each in results if any(nests(field.annotation) for field in each.model_fields.values())
    }


def test_standing_orders_are_a_table() -> None:
    assert text_of(StreamList(streams=[])) == "no standing orders: gatewayd stream start MODEL DEVICE INPUT"
    row = StreamRow(
        id="ord2", model="speaker", device="door-1", input="mic", period_ms=500, deadline_ms=500, until=None, topic="t",
        who="ann", started_at="now", answered=12, failed=1, missed=2, failing=0, failure="", ran_on="node", last_ms=48.493000998,
    )  # fmt: skip
    assert text_of(StreamList(streams=[row])).splitlines()[1].split() == [
        "ord2", "speaker", "door-1", "mic", "500", "ms", "stopped", "12", "2", "1", "node", "48.49", "ms", "-",
    ]  # fmt: skip
