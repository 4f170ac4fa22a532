from pathlib import Path

import pytest

from gatewayd.sim.flash import Flash, FlashFault


@pytest.fixture
def flash(tmp_path: Path) -> Flash:
    made = Flash(tmp_path / "state", slot_count=2, slot_bytes=256, page_bytes=64)
    made.prepare()
    return made


def test_new_flash_is_erased(flash: Flash) -> None:
    assert flash.read(1, 0, 300) == b"\xff" * 256
    assert flash.journals() == (b"", b"")


def test_what_was_written_survives(flash: Flash) -> None:
    flash.write(0, 10, b"model")
    flash.write_journal(1, b"journal")
    again = Flash(flash.directory, slot_count=2, slot_bytes=256, page_bytes=64)
    again.prepare()
    assert again.read(0, 9, 7) == b"\xffmodel\xff"
    assert again.journals() == (b"", b"journal")


def test_writing_needs_erased_flash(flash: Flash) -> None:
    flash.write(0, 0, b"one")
    with pytest.raises(FlashFault, match="not erased"):
        flash.write(0, 2, b"two")
    flash.erase(0, 0)
    flash.write(0, 2, b"two")


def test_erasing_keeps_what_is_before(flash: Flash) -> None:
    flash.write(0, 0, b"a" * 256)
    flash.erase(0, 64)
    assert flash.read(0, 0, 256) == b"a" * 64 + b"\xff" * 192
    with pytest.raises(FlashFault, match="pages are 64"):
        flash.erase(0, 32)


@pytest.mark.parametrize("offset", [250, 256, 1000])
def test_a_slot_has_an_end(flash: Flash, offset: int) -> None:
    with pytest.raises(FlashFault, match="past its end"):
        flash.write(0, offset, b"1234567")


def test_digest_and_export_are_of_the_model_alone(flash: Flash) -> None:
    flash.write(1, 0, b"abc")
    # Source: FIPS 180-2, appendix B.1.
    assert flash.digest(1, 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert flash.export(1, 3).read_bytes() == b"abc"


def test_another_slot_size_is_refused(flash: Flash) -> None:
    with pytest.raises(FlashFault, match="slots are 512"):
        Flash(flash.directory, slot_count=2, slot_bytes=512, page_bytes=64).prepare()
