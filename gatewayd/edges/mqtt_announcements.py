"""What the node says by itself over MQTT: that it is there, and what happened. Values to messages; nothing is sent here.

No message bears an MQTT 5 property: anybody may listen, over 3.1.1 too, and the embedded broker (rumqttd 0.20) drops its
3.1.1 listener when it has to deliver one there.
"""

from typing import assert_never

from gatewayd.core import events
from gatewayd.core.dropping import Drop
from gatewayd.wire.json_text import render_json
from gatewayd.wire.mqtt import Message
from gatewayd.wire.tensors import measured_document, result_document
from gatewayd.wire.topics import Topics

_Told = (
    events.RequestServed
    | events.RequestFailed
    | events.PushMoved
    | events.ModelDropped
    | events.DeviceChanged
    | events.JoiningChanged
    | events.RegistryEvent
    | events.NodeEvent
    | events.OrderEvent
)


def online_message(topics: Topics, *, version: str, since: float) -> Message:
    """Return the retained status; `since` in seconds since 1970."""
    return _status(topics, {"state": "online", "node": topics.node, "version": version, "since": since})


def offline_message(topics: Topics) -> Message:
    """Return the retained status that is the last will, and the last word of an orderly end."""
    return _status(topics, {"state": "offline", "node": topics.node})


def event_message(topics: Topics, event: events.GatewayEvent) -> Message | None:
    """Return what to publish of an event, under `event/push`, `device`, `joining`, `model`, `node` or `request` (QoS 0).

    What a standing order brings goes to `stream/<order>`, or where the order says. None for refused input: who sends it must
    not be able to make the node talk.
    """
    if isinstance(event, events.InputRefused):
        return None
    kind, document = event_document(event)
    if isinstance(event, events.OrderAnswered | events.OrderFailed | events.OrderEnded):
        order = event.order
        return Message(order.topic or topics.stream(order.id), _json(document), qos=order.qos)
    return Message(topics.event(kind), _json(document))


def event_document(event: _Told) -> tuple[str, dict[str, object]]:
    """Return an event's kind (`push`, `drop`, `device`, `joining`, …) and what is told of it, as JSON values."""
    match event:
        case events.PushMoved():
            return "push", _push(event)
        case events.DeviceChanged() | events.JoiningChanged() | events.ModelDropped():
            return _device(event)
        case events.WorkerEnded() | events.VariantQuarantined() | events.AcceleratorChanged():
            return "node", _node(event)
        case events.ModelAdded() | events.AliasMoved() | events.VersionRetired() | events.ArtifactsCollected():
            return "model", _registry(event)
        case events.RequestServed() | events.RequestFailed():
            return "request", _served(event) if isinstance(event, events.RequestServed) else _failed(event)
        case events.OrderAnswered() | events.OrderFailed() | events.OrderEnded():
            return "stream", _ordered(event)
        case _:
            assert_never(event)


def _ordered(event: events.OrderEvent) -> dict[str, object]:
    order = {"order": event.order.id, "model": str(event.order.model), "device": event.order.source.device}
    match event:
        case events.OrderAnswered(_, result):
            return {**order, **result_document(result)}
        case events.OrderFailed(_, code, message, failing):
            return {**order, "error": {"code": code, "message": message}, "failing": failing}
        case events.OrderEnded(_, progress, why):
            counts = {"answered": progress.answered, "failed": progress.failed, "missed": progress.missed}
            return {**order, "ended": why, **counts}
        case _:
            assert_never(event)


def _device(event: events.DeviceChanged | events.JoiningChanged | events.ModelDropped) -> tuple[str, dict[str, object]]:
    match event:
        case events.ModelDropped(drop):
            return "drop", _drop(drop)
        case events.DeviceChanged(device, online, what):
            return "device", {"device": device, "online": online, "what": what}
        case events.JoiningChanged(what, seconds, admitted, who):
            return "joining", {"what": what, "seconds": seconds, "admitted": admitted, "who": who}


def _node(event: events.NodeEvent) -> dict[str, object]:
    match event:
        case events.WorkerEnded(variant, digest, engine, reason):
            what = "worker ended"
            return {"what": what, "variant": variant, "digest": digest, "engine": engine, "reason": reason}
        case events.VariantQuarantined(variant, digest, reason):
            return {"what": "quarantined", "variant": variant, "digest": digest, "reason": reason}
        case events.AcceleratorChanged(kind, present, detail, engines):
            what = "accelerator came" if present else "accelerator went"
            return {"what": what, "kind": kind, "detail": detail, "engines": list(engines)}
        case _:
            assert_never(event)


def _registry(event: events.RegistryEvent) -> dict[str, object]:
    match event:
        case events.ModelAdded(model, version):
            return {"what": "added", "model": model, "version": version}
        case events.AliasMoved(model, alias, place):
            what = "alias moved" if place is not None else "alias removed"
            return {"what": what, "model": model, "alias": alias, "version": place}
        case events.VersionRetired(model, version, retired):
            return {"what": "retired" if retired else "brought back", "model": model, "version": version}
        case events.ArtifactsCollected(count, size_bytes):
            return {"what": "artifacts collected", "count": count, "size": size_bytes}


def _push(event: events.PushMoved) -> dict[str, object]:
    push = event.push
    return {
        "push": push.id,
        "device": push.device,
        "model": push.model,
        "version": push.version,
        "variant": push.variant,
        "state": push.state.value,
        "offset": push.offset,
        "size": push.size_bytes,
        "reason": push.reason,
    }


def _drop(drop: Drop) -> dict[str, object]:
    return {
        "drop": drop.id,
        "device": drop.device,
        "model": drop.model,
        "version": drop.version,
        "state": drop.state.value,
        "reason": drop.reason,
    }


def _served(event: events.RequestServed) -> dict[str, object]:
    result = event.result
    return {
        "id": result.id,
        "model": result.model,
        "version": result.version,
        "variant": result.variant,
        "ran_on": str(result.ran_on),
        "reason": result.reason,
        "label": result.label,
        "measured": measured_document(result.measured),
    }


def _failed(event: events.RequestFailed) -> dict[str, object]:
    request = event.request
    error = {"code": event.code, "message": event.message}
    return {"id": request.id, "model": str(request.model), "error": error, "total_ms": event.total_s * 1000}


def _status(topics: Topics, document: dict[str, object]) -> Message:
    return Message(topics.status, _json(document), qos=1, retain=True)


def _json(document: dict[str, object]) -> bytes:
    return render_json(document)
