"""Trying a freshly pushed model: one inference on the device, compared with what admission recorded."""

import asyncio

from gatewayd.core.errors import DeviceTimeout, DeviceUnreachable, GatewayError, Overloaded
from gatewayd.core.model import Variant
from gatewayd.core.names import ModelRef
from gatewayd.core.selftest import matches, self_test_input
from gatewayd.core.update import Push
from gatewayd.services.catalog import Catalog, variant_of
from gatewayd.services.ports import DeviceLink
from gatewayd.services.tracking import Tracking

# Where admission could not record an expected output, any answer of the right size passes for this input.
_DEFAULT_SEED = 1

# How often a run is asked for before silence counts, and the pause before it is asked for again.
_ASKED = 3
_PAUSE_S = 0.25


class Prover:
    """Runs the trial of a push."""

    def __init__(self, *, catalog: Catalog, tracking: Tracking, timeout_s: float) -> None:
        self._catalog = catalog
        self._tracking = tracking
        self._timeout_s = timeout_s

    async def failure(self, push: Push, link: DeviceLink) -> str:
        """Return why the new model may not stay, or "" when it answered as it should.

        A question that was lost, or could not be asked (the gateway's own connection is just coming up), is asked again until the
        time is over: it says nothing about the model. Raises: GatewayError when the model is not known here any more.
        """
        slot = self._slot(push)
        if slot is None:
            return "the device shows no slot that holds the new model"
        variant = variant_of(self._catalog.resolve(ModelRef(push.model, version=push.version)), push.digest)
        why = ""
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return _difference(variant, await self._output(push, variant, slot, link))
                    except (DeviceTimeout, DeviceUnreachable, Overloaded) as error:
                        why = str(error)
                    await asyncio.sleep(min(_PAUSE_S, self._timeout_s))
        except TimeoutError:
            return why or f"no answer within {self._timeout_s:g} s"
        except GatewayError as error:
            return str(error)

    async def _output(self, push: Push, variant: Variant, slot: int, link: DeviceLink) -> bytes:
        spec = variant.structure.inputs[0]
        seed = variant.self_test.seed if variant.self_test else _DEFAULT_SEED
        run = await link.run_model(
            push.device,
            slot=slot,
            version=push.version,
            content=self_test_input(seed, spec.byte_count, spec.dtype),
            sensor=0,
            timeout_s=self._timeout_s / _ASKED,
        )
        return run.output

    def _slot(self, push: Push) -> int | None:
        report = self._tracking.device(push.device).report
        if report is None:
            return None
        return next((slot.index for slot in report.slots if slot.digest == push.digest), None)


def _difference(variant: Variant, output: bytes) -> str:
    spec, test = variant.structure.outputs[0], variant.self_test
    if len(output) != spec.byte_count:
        return f"the new model answered {len(output)} bytes where {spec.byte_count} were due"
    if test is not None and not matches(test.expected, output, test.tolerance, spec.dtype):
        return "the new model's answer to the self-test differs from the expected one"
    return ""
