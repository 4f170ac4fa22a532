import json

import pytest

from gatewayd.api.fit import FitReport
from gatewayd.api.verb import Caller, Role
from gatewayd.cli.tables import text_of
from gatewayd.core.errors import UnknownDevice, UnknownModel
from tests.fakes_api import World

VIEWER = Caller("vera", Role.VIEWER)


async def fit_of(**arguments: object) -> FitReport:
    result = await World().api().call("models.fit", json.dumps(arguments).encode(), VIEWER)
    assert isinstance(result, FitReport)
    return result


async def test_the_refusal_is_told_with_the_arena_and_how_it_is_known() -> None:
    report = await fit_of(model="kws")
    (device,) = report.devices
    assert (report.model, report.version, device.device, device.runs) == ("kws", 1, "cam-7", False)
    assert device.reason == "tflite-int8: not tried for devices"
    assert (device.variants[0].arena_bytes, device.variants[0].arena_source) == (12000, "measured")


async def test_one_device_may_be_named() -> None:
    assert [each.device for each in (await fit_of(model="kws:stable", device="cam-7")).devices] == ["cam-7"]
    with pytest.raises(UnknownDevice):
        await fit_of(model="kws", device="cam-8")
    with pytest.raises(UnknownModel):
        await fit_of(model="vww")


async def test_people_read_it_as_a_table() -> None:
    text = text_of(await fit_of(model="kws"))
    assert text.splitlines()[0].split() == ["DEVICE", "kws@1", "VARIANT", "ARENA", "WHY"]
    assert "does not run" in text
    assert text_of(FitReport(model="kws", version=1, devices=[])) == "no device was ever seen"
