"""What the node says by itself over MQTT: that it is there, and what happened. Values to messages; nothing is sent here.

No message bears an MQTT 5 property: anybody may listen, over 3.1.1 too, and the embedded broker (rumqttd 0.20) drops its
3.1.1 listener when it has to deliver one there.
"""

from typing import assert_never

from gatewayd.core.dropping import Drop
from gatewayd.core.events import (
    AcceleratorChanged,
    AliasMoved,
    ArtifactsCollected,
    DeviceChanged,
    GatewayEvent,
    InputRefused,
    JoiningChanged,
    ModelAdded,
    ModelDropped,
    NodeEvent,
    OrderAnswered,
    OrderEnded,
    OrderEvent,
    OrderFailed,
    PushMoved,
    RegistryEvent,
    RequestFailed,
    RequestServed,
    VariantQuarantined,
    VersionRetired,
    WorkerEnded,
)
from gatewayd.wire.json_text import render_json
from gatewayd.wire.mqtt import Message
from gatewayd.wire.tensors import measured_document, result_document
from gatewayd.wire.topics import Topics

_Told = (
    RequestServed
    | RequestFailed
    | PushMoved
    | ModelDropped
    | DeviceChanged
    | JoiningChanged
    | RegistryEvent
    | NodeEvent
    | OrderEvent
)


def online_message(topics: Topics, *, version: str, since: float) -> Message:
    """Return the retained status; `since` in seconds since 1970."""
    return _status(topics, {"state": "online", "node": topics.node, "version": version, "since": since})


def offline_message(topics: Topics) -> Message:
    """Return the retained status that is the last will, and the last word of an orderly end."""
    return _status(topics, {"state": "offline", "node": topics.node})


def event_message(topics: Topics, event: GatewayEvent) -> Message | None:
    """Return what to publish of an event, under `event/push`, `device`, `joining`, `model`, `node` or `request` (QoS 0).

    What a standing order brings goes to `stream/<order>`, or where the order says. None for refused input: who sends it must
    not be able to make the node talk.
    """
    if isinstance(event, InputRefused):
        return None
    kind, document = event_document(event)
    if isinstance(event, OrderAnswered | OrderFailed | OrderEnded):
        order = event.order
        return Message(order.topic or topics.stream(order.id), _json(document), qos=order.qos)
    return Message(topics.event(kind), _json(document))


def event_document(event: _Told) -> tuple[str, dict[str, object]]:
    """Return an event's kind (`push`, `drop`, `device`, `joining`, …) and what is told of it, as JSON values."""
    match event:
        case PushMoved():
            return "push", _push(event)
        case DeviceChanged() | JoiningChanged() | ModelDropped():
            return _device(event)
        case WorkerEnded() | VariantQuarantined() | AcceleratorChanged():
            return "node", _node(event)
        case ModelAdded() | AliasMoved() | VersionRetired() | ArtifactsCollected():
            return "model", _registry(event)
        case RequestServed() | RequestFailed():
            return "request", _served(event) if isinstance(event, RequestServed) else _failed(event)
        case OrderAnswered() | OrderFailed() | OrderEnded():
            return "stream", _ordered(event)
        case _:
            assert_never(event)


def _ordered(event: OrderEvent) -> dict[str, object]:
    order = {"order": event.order.id, "model": str(event.order.model), "device": event.order.source.device}
    match event:
        case OrderAnswered(_, result):
            return {**order, **result_document(result)}
        case OrderFailed(_, code, message, failing):
            return {**order, "error": {"code": code, "message": message}, "failing": failing}
        case OrderEnded(_, progress, why):
            counts = {"answered": progress.answered, "failed": progress.failed, "missed": progress.missed}
            return {**order, "ended": why, **counts}
        case _:
            assert_never(event)


def _device(event: DeviceChanged | JoiningChanged | ModelDropped) -> tuple[str, dict[str, object]]:
    match event:
        case ModelDropped(drop):
            return "drop", _drop(drop)
        case DeviceChanged(device, online, what):
            return "device", {"device": device, "online": online, "what": what}
        case JoiningChanged(what, seconds, admitted, who):
            return "joining", {"what": what, "seconds": seconds, "admitted": admitted, "who": who}


def _node(event: NodeEvent) -> dict[str, object]:
    match event:
        case WorkerEnded(variant, digest, engine, reason):
            what = "worker ended"
            return {"what": what, "variant": variant, "digest": digest, "engine": engine, "reason": reason}
        case VariantQuarantined(variant, digest, reason):
            return {"what": "quarantined", "variant": variant, "digest": digest, "reason": reason}
        case AcceleratorChanged(kind, present, detail, engines):
            what = "accelerator came" if present else "accelerator went"
            return {"what": what, "kind": kind, "detail": detail, "engines": list(engines)}
        case _:
            assert_never(event)


def _registry(event: RegistryEvent) -> dict[str, object]:
    match event:
        case ModelAdded(model, version):
            return {"what": "added", "model": model, "version": version}
        case AliasMoved(model, alias, place):
            what = "alias moved" if place is not None else "alias removed"
            return {"what": what, "model": model, "alias": alias, "version": place}
        case VersionRetired(model, version, retired):
            return {"what": "retired" if retired else "brought back", "model": model, "version": version}
        case ArtifactsCollected(count, size_bytes):
            return {"what": "artifacts collected", "count": count, "size": size_bytes}


def _push(event: PushMoved) -> dict[str, object]:
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


def _served(event: RequestServed) -> dict[str, object]:
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


def _failed(event: RequestFailed) -> dict[str, object]:
    request = event.request
    error = {"code": event.code, "message": event.message}
    return {"id": request.id, "model": str(request.model), "error": error, "total_ms": event.total_s * 1000}


def _status(topics: Topics, document: dict[str, object]) -> Message:
    return Message(topics.status, _json(document), qos=1, retain=True)


def _json(document: dict[str, object]) -> bytes:
    return render_json(document)
