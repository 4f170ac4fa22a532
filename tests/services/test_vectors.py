"""Test vectors from given samples: made at admission by the reference engine, kept, and tried on the device."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gatewayd.core.errors import BadRequest, EngineMissing, GatewayError
from gatewayd.core.model import Structure, Vector
from gatewayd.core.names import Digest, parse_model_ref
from gatewayd.core.push import PushState
from gatewayd.services.vectors import MAX_VECTORS
from tests.services.world import DEVICE, EXPECTED, MODEL, World, running, world

# Three samples of [1, 4] reals; the variant stores them in steps of 0.5.
SAMPLES = struct.pack("<12f", *(number / 2 for number in range(12)))


@dataclass
class FakeReference:
    """Answers the first three bytes of the input, or fails."""

    failure: GatewayError | None = None
    seen: list[bytes] = field(default_factory=list)

    async def outputs(self, digest: Digest, structure: Structure, inputs: Sequence[bytes]) -> Sequence[bytes]:
        assert digest
        assert structure
        if self.failure is not None:
            raise self.failure
        self.seen.extend(inputs)
        return [content[:3] for content in inputs]


async def add(w: World, samples: bytes) -> None:
    await w.catalog.add(model=MODEL, files=[b"one"], labels=(), preprocessing="", note="", who="ann", samples=samples)


async def test_vectors_are_made_of_the_first_samples_and_survive(tmp_path: Path) -> None:
    reference = FakeReference()
    async with world(tmp_path, reference=reference) as w:
        await add(w, SAMPLES)
        assert reference.seen == [bytes([0, 1, 2, 3]), bytes([4, 5, 6, 7]), bytes([8, 9, 10, 11])]
    async with world(tmp_path) as w:
        version = w.catalog.resolve(parse_model_ref("kws"))
        assert version.variants[0].vectors == tuple(Vector(n, bytes(range(4 * n, 4 * n + 3)), 2) for n in range(3))
        assert version.samples is not None
        assert await w.artifacts.read(version.samples, 0, 100) == SAMPLES
        inputs = await w.catalog.vector_inputs(version, version.variants[0])
        assert [content for _, content in inputs] == reference.seen


async def test_only_a_few_become_vectors(tmp_path: Path) -> None:
    async with world(tmp_path, reference=FakeReference()) as w:
        await add(w, SAMPLES * 5)
        assert len(w.catalog.resolve(parse_model_ref("kws")).variants[0].vectors) == MAX_VECTORS


async def test_no_engine_no_vectors_but_a_version(tmp_path: Path) -> None:
    async with world(tmp_path, reference=FakeReference(EngineMissing("none"))) as w:
        await add(w, SAMPLES)
        assert w.catalog.resolve(parse_model_ref("kws")).variants[0].vectors == ()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (SAMPLES[:-1], "samples: 47 bytes are no whole number of samples of 16 bytes"),
        (bytes(4 * 2**20 + 16), "are over the limit of 4194304"),
        (struct.pack("<4f", 1, 2, 3, float("nan")), "NaN|nan|number"),
    ],
)
async def test_samples_that_do_not_fit_are_refused(tmp_path: Path, samples: bytes, message: str) -> None:
    async with world(tmp_path, reference=FakeReference()) as w:
        with pytest.raises(BadRequest, match=message):
            await add(w, samples)
        assert w.catalog.versions() == ()
        assert await w.artifacts.digests() == {}


@pytest.mark.parametrize(("is_right", "state"), [(True, PushState.ACCEPTED), (False, PushState.ROLLED_BACK)])
async def test_a_device_has_to_answer_the_samples_as_the_reference_did(
    tmp_path: Path,
    is_right: bool,  # noqa: FBT001 - a parametrised case
    state: PushState,
) -> None:
    async with world(tmp_path, reference=FakeReference()) as w:
        # The device of this world answers EXPECTED to everything, which is right for the self-test.
        near = struct.pack("<4f", *(value / 2 for value in (*EXPECTED, 0)))
        await add(w, near if is_right else SAMPLES[16:])
        await w.join()
        async with running(w.pushes):
            push = await w.pushes.start(DEVICE, parse_model_ref("kws"), who="ann")
            ended = await w.ended(push)
        assert ended.state is state
        if not is_right:
            assert "sample 0 differs" in ended.reason
