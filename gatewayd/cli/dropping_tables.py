"""Results of the verbs about dropped models as text for people."""

from collections.abc import Sequence

from gatewayd.api.dropping import DropList, DropRow
from gatewayd.cli.tables import table_text, text_of


@text_of.register
def _drop(row: DropRow) -> str:
    return _drops([row])


@text_of.register
def _drop_list(result: DropList) -> str:
    return _drops(result.drops) if result.drops else "no device was told to let a model go yet"


def _drops(rows: Sequence[DropRow]) -> str:
    head = ("DROP", "DEVICE", "MODEL", "STATE", "ASKED", "BY", "REASON")
    cells = [
        (str(row.drop), row.device, f"{row.model}@{row.version}", row.state, row.asked_at, row.who, _reason(row))
        for row in rows
    ]
    return table_text(head, cells)


def _reason(row: DropRow) -> str:
    return "; ".join(each for each in (row.why, row.reason) if each)
