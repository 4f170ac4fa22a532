import pytest

from gatewayd.api.devices import DeviceList
from gatewayd.api.inference import CostsRow, OutputRow
from gatewayd.api.models import ModelList
from gatewayd.cli.tables import size_text, text_of


def test_nothing_there_says_what_to_do() -> None:
    assert text_of(ModelList(models=[])) == "no models yet: gatewayd models add NAME --file FILE"
    assert text_of(DeviceList(devices=[])) == "no device was ever seen"


def test_what_has_no_layout_is_names_and_values() -> None:
    output = OutputRow(name="y", datatype="INT8", shape=[1], data=[3])
    assert text_of(output) == "name: y\ndatatype: INT8\nshape: [1]\ndata: [3]"
    assert text_of(CostsRow(latency_ms=None, energy_uj=1.5, link_bytes=2, failure=0)).startswith("latency_ms: None\n")


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (18432, "18.0 KiB")])
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
