"""What a terminal of a given width shows in the end, and that nothing is redrawn elsewhere."""

import re

import pytest

from gatewayd.demo.screen import Screen

WIDTH = 60
LONG = "the node is the only place: device:attic-3: speaker@1 does not fit: it needs a 6,864-byte arena and has less"


def shown(text: str) -> list[str]:
    """Play what was written on a terminal that never wraps by itself; return its lines as they stand."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[2K|\x1b\[1A|\x1b\[[0-9;]*m|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith(("\x1b", "\r")):
            lines[row] += part
    return [line for line in lines if line]


@pytest.fixture
def screen() -> Screen:
    return Screen(is_terminal=True, columns=lambda: WIDTH)


def test_long_lines_hang_and_fit(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    screen.section(3, LONG)
    screen.good(LONG)
    screen.line(f"   before  because {LONG}", hang=11)
    lines = shown(capsys.readouterr().out)
    assert max(map(len, lines)) < WIDTH
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 3, 3, 5, 3, 11, 11]


def test_bars_stay_below_the_lines_and_are_cut_to_the_width(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    screen.bar("a", 0.0, f"speaker@2 -> a: {LONG}")
    screen.bar("b", 0.5, "b")
    screen.line("a line")
    screen.bar("a", 1.0, f"speaker@2 -> a: {LONG}")
    screen.good("a: accepted")
    lines = shown(capsys.readouterr().out)
    assert lines[:2] == ["a line", "   ✓ a: accepted"]
    assert [line[:9] for line in lines[2:]] == ["   [█████", "   [█████"]
    assert max(map(len, lines)) < WIDTH


def test_a_bar_that_is_dropped_leaves_nothing(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    screen.bar("a", 0.5, "half")
    screen.drop_bar("a")
    screen.line("after")
    assert shown(capsys.readouterr().out) == ["after"]


def test_elsewhere_lines_are_whole_and_plain_and_bars_are_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(is_terminal=False, columns=lambda: WIDTH)
    screen.bar("a", 0.5, "half")
    screen.good(LONG)
    screen.section(1, LONG)
    assert capsys.readouterr().out == f"   ✓ {LONG}\n\n1. {LONG}\n"


def test_colour_is_left_out_where_it_is_not_wanted(
    screen: Screen, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen.good("done")
    assert capsys.readouterr().out == "   \x1b[32m✓\x1b[0m done\n"
    monkeypatch.setenv("NO_COLOR", "1")
    screen.good("done")
    assert capsys.readouterr().out == "   ✓ done\n"


def test_a_command_is_left_whole_to_be_copied(screen: Screen, capsys: pytest.CaptureFixture[str]) -> None:
    screen.whole(f"   {LONG}")
    assert capsys.readouterr().out == f"   {LONG}\n"
