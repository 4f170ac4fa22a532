"""The store's SQL about standing orders. Runs on the store's thread only."""

import json
import sqlite3
from typing import TypedDict

from gatewayd.core.names import DeviceId, parse_model_ref
from gatewayd.core.request import Privacy, SensorRef, Target
from gatewayd.core.standing import StandingOrder


class _Target(TypedDict):
    device: str | None


class _Terms(TypedDict):
    model: str
    device: str
    sensor: str
    period_s: float
    deadline_s: float
    topic: str
    qos: int
    request_class: str
    privacy: str
    pin: _Target | None
    prefer: _Target | None
    stream: str


def load_orders(connection: sqlite3.Connection) -> tuple[StandingOrder, ...]:
    """Return all, the oldest first."""
    rows = connection.execute(
        "SELECT id, started_at, until_at, who, terms FROM standing_orders ORDER BY started_at, id"
    )
    return tuple(_order(*row) for row in rows)


def save_order(connection: sqlite3.Connection, order: StandingOrder) -> None:
    """Insert or replace."""
    columns = (order.id, order.started_at, order.until, order.who, json.dumps(_terms(order), allow_nan=False))
    connection.execute("INSERT OR REPLACE INTO standing_orders VALUES (?, ?, ?, ?, ?)", columns)


def drop_order(connection: sqlite3.Connection, order_id: str) -> None:
    """Remove; none is no error."""
    connection.execute("DELETE FROM standing_orders WHERE id = ?", (order_id,))


def _terms(order: StandingOrder) -> _Terms:
    return {
        "model": str(order.model),
        "device": order.source.device,
        "sensor": order.source.sensor,
        "period_s": order.period_s,
        "deadline_s": order.deadline_s,
        "topic": order.topic,
        "qos": order.qos,
        "request_class": order.request_class,
        "privacy": order.privacy.value,
        "pin": _target_row(order.pin),
        "prefer": _target_row(order.prefer),
        "stream": order.stream,
    }


def _order(order_id: str, started_at: float, until: float | None, who: str, text: str) -> StandingOrder:
    terms: _Terms = json.loads(text)
    return StandingOrder(
        id=order_id,
        model=parse_model_ref(terms["model"]),
        source=SensorRef(DeviceId(terms["device"]), terms["sensor"]),
        period_s=terms["period_s"],
        deadline_s=terms["deadline_s"],
        until=until,
        who=who,
        started_at=started_at,
        topic=terms["topic"],
        qos=terms["qos"],
        request_class=terms["request_class"],
        privacy=Privacy(terms["privacy"]),
        pin=_target(terms["pin"]),
        prefer=_target(terms["prefer"]),
        stream=terms["stream"],
    )


def _target_row(target: Target | None) -> _Target | None:
    return None if target is None else {"device": target.device}


def _target(row: _Target | None) -> Target | None:
    if row is None:
        return None
    return Target(None if row["device"] is None else DeviceId(row["device"]))
