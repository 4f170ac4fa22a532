"""Plots of a study as SVG, written by hand: what each policy had paid by when, and how its latencies are spread."""

from collections.abc import Callable, Sequence
from html import escape

from gatewayd.simulate.engine import Tally

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 420, 80, 150, 40, 50
# Okabe and Ito's palette, told apart by colour-blind readers.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_TICKS = 5
_POINTS = 200  # of a latency curve: more are not seen

Curve = tuple[str, Sequence[tuple[float, float]]]


def cost_plot(tallies: Sequence[Tally], title: str) -> str:
    """Return an SVG of the cost paid over time."""
    curves = [(each.policy, [(at_s / 3600.0, cost) for at_s, cost in each.course]) for each in tallies]
    return curves_plot(curves, title=f"{title}: cost paid", across="hours", up="J")


def latency_plot(tallies: Sequence[Tally], title: str) -> str:
    """Return an SVG of the share of requests served within a time."""
    return curves_plot(
        [(each.policy, _spread(each)) for each in tallies], title=f"{title}: latency", across="ms", up="%"
    )


def _spread(tally: Tally) -> list[tuple[float, float]]:
    latencies = sorted(tally.latencies_s)
    step = max(1, len(latencies) // _POINTS)
    # the last percent would stretch the axis over the rest
    shown = range(0, int(len(latencies) * 0.99), step)
    return [(1000.0 * latencies[index], 100.0 * (index + 1) / len(latencies)) for index in shown]


def curves_plot(curves: Sequence[Curve], *, title: str, across: str, up: str) -> str:
    """Return an SVG of named curves; `across` and `up` are the axes' units."""
    most_x = max((x for _, points in curves for x, _ in points), default=1.0) or 1.0
    most_y = max((y for _, points in curves for _, y in points), default=1.0) or 1.0

    def at_x(value: float) -> float:
        return _LEFT + value / most_x * (_WIDTH - _LEFT - _RIGHT)

    def at_y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / most_y * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
        *_axes(at_x, at_y, most_x=most_x, most_y=most_y, across=across, up=up),
    ]
    for index, (name, points) in enumerate(curves):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label_y = _TOP + 18 * index
        parts.append(f'<rect x="{_WIDTH - _RIGHT + 16}" y="{label_y}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 36}" y="{label_y + 7}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
    *,
    most_x: float,
    most_y: float,
    across: str,
    up: str,
) -> list[str]:
    lines = []
    for tick in range(_TICKS + 1):
        x, y = most_x * tick / _TICKS, most_y * tick / _TICKS
        end = f'x2="{_WIDTH - _RIGHT}" y2="{at_y(y):.1f}"'
        lines.append(f'<line x1="{_LEFT}" y1="{at_y(y):.1f}" {end} stroke="#ddd"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{at_y(y) + 4:.1f}" text-anchor="end">{y:,.4g}</text>')
        lines.append(f'<text x="{at_x(x):.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{x:,.4g}</text>')
    lines.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 10}" text-anchor="end">{escape(across)}</text>')
    lines.append(f'<text x="{_LEFT - 8}" y="{_TOP - 8}" text-anchor="end">{escape(up)}</text>')
    return lines
