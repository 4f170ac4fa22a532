"""Trying a freshly pushed model: inferences on the device, compared with what admission recorded."""

import asyncio
from dataclasses import dataclass

from gatewayd.core.errors import DeviceTimeout, DeviceUnreachable, GatewayError, Overloaded
from gatewayd.core.model import Variant, Version
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
        version = self._catalog.resolve(ModelRef(push.model, version=push.version))
        variant = variant_of(version, push.digest)
        why = await self._self_test_failure(variant, _Questions(push, link, slot, self._timeout_s))
        return why or await self._sample_failure(version, variant, _Questions(push, link, slot, self._timeout_s))

    async def _self_test_failure(self, variant: Variant, questions: "_Questions") -> str:
        spec = variant.structure.inputs[0]
        seed = variant.self_test.seed if variant.self_test else _DEFAULT_SEED
        try:
            async with asyncio.timeout(self._timeout_s):
                return _difference(variant, await questions.answer(self_test_input(seed, spec.byte_count, spec.dtype)))
        except TimeoutError:
            return questions.lost or f"no answer within {self._timeout_s:g} s"
        except GatewayError as error:
            return str(error)

    async def _sample_failure(self, version: Version, variant: Variant, questions: "_Questions") -> str:
        """Try the samples that came with the version: those whose right answers are known, while the time for it lasts."""
        dtype, tried = variant.structure.outputs[0].dtype, 0
        try:
            async with asyncio.timeout(self._timeout_s):
                for vector, content in await self._catalog.vector_inputs(version, variant):
                    output = await questions.answer(content)
                    if not matches(vector.expected, output, vector.tolerance, dtype):
                        return f"the new model's answer to sample {vector.sample} differs from the expected one"
                    tried += 1
        except GatewayError as error:
            return str(error)
        except TimeoutError:
            # A slow device need not answer all of them: the trial as a whole has its deadline.
            return "" if tried else questions.lost or f"no answer to a sample within {self._timeout_s:g} s"
        return ""

    def _slot(self, push: Push) -> int | None:
        report = self._tracking.device(push.device).report
        if report is None:
            return None
        return next((slot.index for slot in report.slots if slot.digest == push.digest), None)


@dataclass(slots=True)
class _Questions:
    """Inferences asked of the new model in its slot; `lost` says why the last one without an answer had none."""

    push: Push
    link: DeviceLink
    slot: int
    timeout_s: float
    lost: str = ""

    async def answer(self, content: bytes) -> bytes:
        """Ask until there is an answer: the caller ends it. Raises: GatewayError (refused)."""
        while True:
            try:
                run = await self.link.run_model(
                    self.push.device,
                    slot=self.slot,
                    version=self.push.version,
                    content=content,
                    sensor=0,
                    timeout_s=self.timeout_s / _ASKED,
                    is_trial=True,
                )
            except (DeviceTimeout, DeviceUnreachable, Overloaded) as error:
                self.lost = str(error)
            else:
                return run.output
            await asyncio.sleep(min(_PAUSE_S, self.timeout_s))


def _difference(variant: Variant, output: bytes) -> str:
    spec, test = variant.structure.outputs[0], variant.self_test
    if len(output) != spec.byte_count:
        return f"the new model answered {len(output)} bytes where {spec.byte_count} were due"
    if test is not None and not matches(test.expected, output, test.tolerance, spec.dtype):
        return "the new model's answer to the self-test differs from the expected one"
    return ""
