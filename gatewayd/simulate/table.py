"""The outcome of a study for people: one line per policy, in the units of the world."""

from collections.abc import Sequence

from gatewayd.simulate.engine import Tally

_HEAD = (
    "policy",
    "cost",
    "to optimum",
    "mean",
    "p99",
    "energy",
    "on air",
    "on device",
    "pushes",
    "evicted",
    "late",
    "unserved",
)
_LEFT_COLUMNS = 1


def table(tallies: Sequence[Tally], optimum: float) -> str:
    """Return the table. Cost in J (milliseconds' worth), energy of the devices, bytes over their links."""
    rows = [_HEAD, *(_row(each, optimum) for each in tallies), ("clairvoyant", f"{optimum:,.0f}", "1.000", *[""] * 9)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < _LEFT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def percentile_s(ordered: Sequence[float], share: float) -> float:
    """Return what a share of the values is not above; 0 without any."""
    return ordered[int(share * (len(ordered) - 1))] if ordered else 0.0


def _row(tally: Tally, optimum: float) -> tuple[str, ...]:
    latencies = sorted(tally.latencies_s)
    mean_s = sum(latencies) / len(latencies) if latencies else 0.0
    p99_s = percentile_s(latencies, 0.99)
    return (
        tally.policy,
        f"{tally.total:,.0f}",
        f"{tally.total / optimum:.3f}" if optimum else "",
        _milliseconds(mean_s),
        _milliseconds(p99_s),
        f"{tally.energy_uj / 1e6:,.2f} J",
        f"{tally.link_bytes / 1e6:,.2f} MB",
        f"{tally.on_device / max(1, tally.requests):.0%}",
        f"{tally.pushes}" + (f" ({tally.failed_pushes} failed)" if tally.failed_pushes else ""),
        str(tally.evictions),
        str(tally.late),
        str(tally.unserved),
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms"
