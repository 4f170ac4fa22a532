"""Results of the verbs about standing orders as text for people."""

from collections.abc import Sequence

from gatewayd.api.streams import StreamList, StreamRow
from gatewayd.cli.tables import quantity_text, table_text, text_of


@text_of.register
def _stream(row: StreamRow) -> str:
    return _streams([row])


@text_of.register
def _stream_list(result: StreamList) -> str:
    return (
        _streams(result.streams) if result.streams else "no standing orders: gatewayd stream start MODEL DEVICE INPUT"
    )


def _streams(rows: Sequence[StreamRow]) -> str:
    head = ("ORDER", "MODEL", "SENSOR", "EVERY", "UNTIL", "ANSWERED", "MISSED", "FAILED", "RAN ON", "LAST", "FAILURE")
    return table_text(head, [_cells(row) for row in rows])


def _cells(row: StreamRow) -> tuple[str, ...]:
    counts = (str(row.answered), str(row.missed), str(row.failed))
    times = quantity_text(row.period_ms, "ms"), row.until or "stopped"
    last = (row.ran_on or "-", quantity_text(row.last_ms, "ms"), row.failure or "-")
    return (row.id, row.model, f"{row.device} {row.input}", *times, *counts, *last)
