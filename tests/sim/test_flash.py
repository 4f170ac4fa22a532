from pathlib import Path

import pytest

from gatewayd.sim.flash import Cells, FileCells, Flash, FlashFault, Layout, MemoryCells, Power, PowerCut, Tear

LAYOUT = Layout(slot_count=2, slot_bytes=250, page_bytes=64, journal_bytes=128, word_bytes=4)


@pytest.fixture(params=["memory", "file"])
def cells(request: pytest.FixtureRequest, tmp_path: Path) -> Cells:
    if request.param == "memory":
        return MemoryCells(LAYOUT)
    made = FileCells(tmp_path / "state", LAYOUT)
    made.prepare()
    return made


@pytest.fixture
def flash(cells: Cells) -> Flash:
    return Flash(LAYOUT, cells)


def test_new_flash_is_erased(flash: Flash) -> None:
    assert flash.read(1, 0, 300) == b"\xff" * 250
    assert flash.journals() == (b"\xff" * 128, b"\xff" * 128)
    assert flash.cells.wear() == (0,) * 12


def test_what_was_written_survives(tmp_path: Path) -> None:
    for _ in range(2):
        cells = FileCells(tmp_path, LAYOUT)
        cells.prepare()
    flash = Flash(LAYOUT, cells)
    flash.write(0, 12, b"model")
    flash.write_journal(1, 0, b"journal")
    flash.write_journal(1, 8, b"more")
    again = Flash(LAYOUT, FileCells(tmp_path, LAYOUT))
    assert again.read(0, 11, 7) == b"\xffmodel\xff"
    assert again.journals() == (b"\xff" * 128, b"journal\xffmore" + b"\xff" * 116)
    assert again.cells.wear() == (0, 0, 1, 1) + (0,) * 8


@pytest.mark.parametrize("offset", [0, 2, 5, 7])
def test_a_word_is_written_once_per_erase(flash: Flash, offset: int) -> None:
    flash.write(0, 0, b"first")
    with pytest.raises(FlashFault, match="not erased"):
        flash.write(0, offset, b"second")
    flash.write(0, 8, b"second")
    flash.erase(0, 0, 250)
    flash.write(0, offset, b"second")


def test_erasing_keeps_what_is_before_and_beside(flash: Flash) -> None:
    for slot in (0, 1):
        flash.write(slot, 0, b"a" * 250)
    flash.erase(0, 64, 250)
    assert flash.read(0, 0, 250) == b"a" * 64 + b"\xff" * 186
    assert flash.read(1, 0, 250) == b"a" * 250
    assert flash.cells.wear() == (0,) * 5 + (1, 1, 1) + (0,) * 4
    with pytest.raises(FlashFault, match="pages are 64"):
        flash.erase(0, 32, 250)


def test_erasing_a_part_keeps_what_is_behind_it(flash: Flash) -> None:
    flash.write(0, 0, b"a" * 250)
    flash.erase(0, 64, 128)
    assert flash.read(0, 0, 250) == b"a" * 64 + b"\xff" * 64 + b"a" * 122
    with pytest.raises(FlashFault, match="pages are 64"):
        flash.erase(0, 64, 100)


@pytest.mark.parametrize("offset", [250, 256, 1000])
def test_a_region_has_an_end(flash: Flash, offset: int) -> None:
    with pytest.raises(FlashFault, match="past its end"):
        flash.write(0, offset, b"1")
    with pytest.raises(FlashFault, match="past its end"):
        flash.write_journal(0, 124, b"12345")


@pytest.mark.parametrize(("tear", "written"), [(Tear.NONE, 0), (Tear.ONE, 1), (Tear.HALF, 32), (Tear.ALMOST, 63)])
def test_a_cut_leaves_a_part_of_one_page(flash: Flash, tear: Tear, written: int) -> None:
    flash.power = Power(1, tear)
    with pytest.raises(PowerCut, match="page 5"):
        flash.write(0, 0, b"a" * 250)
    assert flash.read(0, 0, 250) == (b"a" * (64 + written)).ljust(250, b"\xff")


@pytest.mark.parametrize(("tear", "erased"), [(Tear.NONE, 0), (Tear.ONE, 1), (Tear.HALF, 32), (Tear.ALMOST, 63)])
def test_a_cut_erase_leaves_the_rest(flash: Flash, tear: Tear, erased: int) -> None:
    flash.write(1, 0, b"a" * 250)
    flash.power = Power(0, tear)
    with pytest.raises(PowerCut):
        flash.erase(1, 64, 250)
    assert flash.read(1, 0, 250) == b"a" * 64 + b"\xff" * erased + b"a" * (186 - erased)
    with pytest.raises(PowerCut):
        flash.erase(1, 64, 250)


def test_a_journals_erase_is_an_operation_per_page(flash: Flash) -> None:
    flash.write_journal(0, 0, b"a" * 128)
    assert flash.power.done == 4
    flash.write_journal(0, 0, b"b")
    assert flash.power.done == 7


def test_digest_is_of_the_model_alone(flash: Flash) -> None:
    flash.write(1, 0, b"abc")
    # Source: FIPS 180-2, appendix B.1.
    assert flash.digest(1, 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_another_board_is_refused(tmp_path: Path) -> None:
    FileCells(tmp_path, LAYOUT).prepare()
    other = Layout(slot_count=3, slot_bytes=250, page_bytes=64, journal_bytes=128)
    with pytest.raises(FlashFault, match=r"this board's flash takes 1024"):
        FileCells(tmp_path, other).prepare()
