import argparse
from pathlib import Path

import pytest

from gatewayd.sim.command import EXIT_USAGE, add_arguments, run, trusted_keys


def parsed(tmp_path: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    basic = ["--id", "cam-7", "--node", "n", "--board", "nucleo-g0b1re", "--state", str(tmp_path / "state")]
    basic += ["--trust", "0" * 64]
    return parser.parse_args([*basic, *more])


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--board", "nonsense"), "--board nonsense: no profile of that name"),
        (("--broker", "here"), "--broker here: must be host:port"),
        (("--broker", "here:99999"), "--broker here:99999: must be host:port"),
        (("--id", "a/b"), "device id"),
        (("--arena", "999999"), "--arena 999999: nucleo-g0b1re has 147456 bytes of RAM"),
        (("--slots", "9"), "--slots 9: must be 1..8"),
        (("--slots", "8"), "8 slots of 131072 bytes do not fit the 524288 bytes of flash"),
        (("--chunk", "0"), "--chunk 0: must be"),
        (("--battery", "2"), "--battery 2.0: must be 0..1"),
        (("--samples", "/nowhere.json"), "/nowhere.json: No such file"),
        (("--trust", "/nowhere"), "--trust /nowhere: neither 64 hex digits nor a file"),
        (("--trust", __file__), "must hold public keys, 64 hex digits a line"),
        (("--password-file", "/nowhere"), "--password-file /nowhere"),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], problem: str
) -> None:
    assert run(parsed(tmp_path, *more)) == EXIT_USAGE
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1
    assert not (tmp_path / "state").exists()


def test_a_board_that_trusts_nobody_does_not_start(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--id", "c", "--node", "n", "--board", "b", "--state", str(tmp_path)])
    assert "--trust" in capsys.readouterr().err


def test_keys_are_read_from_lines_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "trusted.txt"
    file.write_text(f"# ours\n{'ab' * 32}  # signing\n\n{'cd' * 32}\n")
    trusted = list(trusted_keys([str(file), "ef" * 32]))
    assert trusted == [b"\xab" * 32, b"\xcd" * 32, b"\xef" * 32]
