"""Trying a freshly pushed model: one inference on the device, compared with what admission recorded."""

import asyncio

from gatewayd.core.errors import GatewayError
from gatewayd.core.model import Variant
from gatewayd.core.names import ModelRef
from gatewayd.core.selftest import matches, self_test_input
from gatewayd.core.update import Push
from gatewayd.services.catalog import Catalog, variant_of
from gatewayd.services.ports import DeviceLink
from gatewayd.services.tracking import Tracking

# Where admission could not record an expected output, any answer of the right size passes for this input.
_DEFAULT_SEED = 1


class Prover:
    """Runs the trial of a push."""

    def __init__(self, *, catalog: Catalog, tracking: Tracking, timeout_s: float) -> None:
        self._catalog = catalog
        self._tracking = tracking
        self._timeout_s = timeout_s

    async def failure(self, push: Push, link: DeviceLink) -> str:
        """Return why the new model may not stay, or "" when it answered as it should. Never raises for the device's sake."""
        slot = self._slot(push)
        if slot is None:
            return "the device shows no slot that holds the new model"
        variant = variant_of(self._catalog.resolve(ModelRef(push.model, version=push.version)), push.digest)
        spec = variant.structure.inputs[0]
        seed = variant.self_test.seed if variant.self_test else _DEFAULT_SEED
        try:
            run = await link.run_model(
                push.device,
                slot=slot,
                version=push.version,
                content=self_test_input(seed, spec.byte_count, spec.dtype),
                sensor=0,
                timeout_s=self._timeout_s,
            )
        except GatewayError as error:
            return str(error)
        return _difference(variant, run.output) or await self._sample_failure(push, link, variant, slot)

    async def _sample_failure(self, push: Push, link: DeviceLink, variant: Variant, slot: int) -> str:
        """Try the samples that came with the version: those whose right answers are known, while the time for it lasts."""
        version = self._catalog.resolve(ModelRef(push.model, version=push.version))
        dtype, tried = variant.structure.outputs[0].dtype, 0
        try:
            async with asyncio.timeout(self._timeout_s):
                for vector, content in await self._catalog.vector_inputs(version, variant):
                    run = await link.run_model(
                        push.device,
                        slot=slot,
                        version=push.version,
                        content=content,
                        sensor=0,
                        timeout_s=self._timeout_s,
                    )
                    if not matches(vector.expected, run.output, vector.tolerance, dtype):
                        return f"the new model's answer to sample {vector.sample} differs from the expected one"
                    tried += 1
        except GatewayError as error:
            return str(error)
        except TimeoutError:
            # A slow device need not answer all of them: the trial as a whole has its deadline.
            return "" if tried else f"{push.device} did not answer to a sample within {self._timeout_s:g} s"
        return ""

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
