"""What a proof writes: figures, goals, and whether they were met; the format of the benchmarks."""

import json
import operator
import os
import platform
from collections.abc import Mapping
from pathlib import Path

Figures = dict[str, float]
Goals = Mapping[str, tuple[str, float]]

_OPERATORS = {"==": operator.eq, "<=": operator.le, ">=": operator.ge}
_FOLDER = Path("build/bench")


def write_report(name: str, figures: Figures, goals: Goals) -> bool:
    """Print the table, write build/bench/NAME.json, return whether every goal was met."""
    met = {figure: bool(_OPERATORS[how](figures[figure], goal)) for figure, (how, goal) in goals.items()}
    width = max(map(len, figures))
    for figure, value in figures.items():
        how, goal = goals.get(figure, ("", 0))
        verdict = f"  goal {how} {goal:g}: {'met' if met[figure] else 'MISSED'}" if how else ""
        print(f"  {figure.ljust(width)}  {value:>12,.10g}{verdict}")
    machine = {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()}
    _FOLDER.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "machine": machine, "figures": figures, "goals": goals, "met": met}
    (_FOLDER / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    return all(met.values())
