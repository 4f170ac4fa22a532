from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.core.compression import inflated
from gatewayd.core.errors import NodeError
from gatewayd.core.names import parse_model_ref
from gatewayd.core.push import PushState
from tests.services.world import CAPABILITIES, running, world

MODEL_BYTES = bytes(range(256)) * 10
KWS = parse_model_ref("kws")


async def test_a_compressed_push_sends_less_and_the_gateway_decoded_it_before(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        w.device.capabilities = replace(CAPABILITIES, deflate_bits=12)
        await w.join()
        async with running(w.pushes):
            push = await w.pushes.start(w.device.id, KWS, who="ann")
            assert (await w.ended(push)).state is PushState.ACCEPTED
        assert push.size_bytes == len(w.device.received) < len(MODEL_BYTES) / 2
        assert inflated(bytes(w.device.received), 12, len(MODEL_BYTES)) == MODEL_BYTES
        assert push.digest == version.variants[0].digest


async def test_an_artifact_that_is_damaged_on_the_disk_is_not_offered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        version = await w.add(MODEL_BYTES)
        await w.join()
        path = w.artifacts.path(version.variants[0].digest)
        whole = path.read_bytes()
        for bit in range(0, len(whole) * 8, 97):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(changed))
            with pytest.raises(NodeError, match="damaged on the disk"):
                await w.pushes.start(w.device.id, KWS, who="ann")
        assert w.device.sent == []


async def test_an_encoded_form_that_is_damaged_on_the_disk_is_mended(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        w.device.capabilities = replace(CAPABILITIES, deflate_bits=12)
        await w.join()
        w.device.rejects = "not now"
        async with running(w.pushes):
            first = await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
            path = w.artifacts.path(first.stream)
            whole = path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            await w.ended(await w.pushes.start(w.device.id, KWS, who="ann"))
        assert path.read_bytes() == whole


async def test_an_offer_whose_signature_was_damaged_in_the_journal_is_not_repeated(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.add(MODEL_BYTES)
        await w.join()
        push = await w.pushes.start(w.device.id, KWS, who="ann")
        signed = bytearray(push.signed)
        signed[40] ^= 1
        await w.store.save_push(replace(push, signed=bytes(signed)))
    async with world(tmp_path) as w, running(w.pushes):
        w.device.birth()
        ended = await w.ended(push)
        assert (ended.state, "signature does not hold" in ended.reason) == (PushState.CANCELLED, True)
        assert "offer" not in w.device.sent


async def test_a_long_self_test_is_cut_to_what_a_manifest_holds(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.trial.expected = bytes(1200)
        await w.add(MODEL_BYTES)
        await w.join()
        await w.pushes.start(w.device.id, KWS, who="ann")
        assert w.device.offered is not None
        assert len(w.device.offered.signed) <= 1024
        test = w.device.offered.manifest.self_test
        assert test is not None
        assert test.expected == bytes(600)
