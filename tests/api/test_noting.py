"""Every verb that changes rows hands its caller's note down, and the note makes the answer that is sent."""

import base64
from collections.abc import Mapping
from dataclasses import replace

import pytest

from gatewayd.api.table import VERBS
from gatewayd.api.verb import Caller, Result, Role
from gatewayd.core.command import Effect, Receipt, command_id
from tests.fakes_api import World

ANN = Caller("ann", Role.ADMIN)
FILE = base64.b64encode(b"TFL3").decode()
COMMAND = command_id(reply_topic="reply/a", name=b"1", verb="verb", payload=b"{}")
ORDER = {"id": "watch", "model": "kws", "device": "cam-7", "input": "mic", "period_ms": 500}

ARGUMENTS: Mapping[str, Mapping[str, object]] = {
    "models.add": {"model": "kws", "files": [FILE]},
    "models.alias": {"model": "kws", "alias": "canary", "version": 1},
    "models.back": {"model": "kws", "alias": "stable"},
    "models.unalias": {"model": "kws", "alias": "stable"},
    "models.retire": {"model": "kws@1"},
    "models.restore": {"model": "kws@1"},
    "models.fetch": {"model": "kws", "sources": ["http://files/kws"], "digests": ["a" * 64]},
    "models.build": {"model": "kws", "for": "int8"},
    "devices.approve": {"device": "cam-7"},
    "devices.release": {"device": "cam-7"},
    "devices.one-slot": {"device": "cam-7"},
    "devices.revoke": {"device": "cam-7"},
    "devices.forget": {"device": "cam-7"},
    "push": {"device": "cam-7", "model": "kws"},
    "pushes.cancel": {"push": 7},
    "stream.start": ORDER,
    "stream.stop": {"id": "watch"},
}
BEFORE: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "models.restore": ("models.retire", {"model": "kws@1"}),
    "models.back": ("models.alias", {"model": "kws", "alias": "stable", "version": 1}),
    "devices.revoke": ("devices.credentials.new", {"device": "cam-7"}),
    "stream.stop": ("stream.start", ORDER),
    "pushes.cancel": ("push", {"device": "cam-7", "model": "kws"}),
}


def encoded(result: object) -> bytes:
    assert isinstance(result, Result)
    return result.model_dump_json().encode()


@pytest.mark.parametrize("verb", sorted(name for name, verb in VERBS.items() if verb.effect is Effect.ROWS))
async def test_a_verb_that_changes_rows_makes_its_record_with_them(verb: str) -> None:
    assert verb in ARGUMENTS, "say how it is called; tests/services/test_noting.py has to know it too"
    api = World().api()
    if verb in BEFORE:
        await api.call(*BEFORE[verb], ANN)
    receipt = Receipt(COMMAND, at=1.8e9, encode=encoded)
    result = await api.call(verb, ARGUMENTS[verb], replace(ANN, receipt=receipt))
    assert receipt.record is not None, f"{verb} does not hand caller.note(...) to its service"
    assert receipt.record.answer == encoded(result)
