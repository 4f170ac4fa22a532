import argparse
import json
from pathlib import Path

import pytest

from gatewayd.core.errors import BadRequest
from gatewayd.sim.attach import client_options, given_credentials, trusted_texts
from gatewayd.sim.client import ClientOptions
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
        (("--rtt", "-1"), "--rtt -1.0: must be 0..60 seconds"),
        (("--rtt", "nan"), "--rtt nan: must be 0..60 seconds"),
        (("--rate", "0"), "--rate 0.0: must be 1 byte per second or more"),
        (("--spread", "1"), "--spread 1.0: must be 0 or more and under 1"),
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


def test_a_state_folder_that_cannot_be_made_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(parsed(tmp_path, "--state", str(tmp_path / "file" / "x"))) == EXIT_USAGE
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_a_board_that_trusts_nobody_does_not_start(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = ["--id", "c", "--node", "n", "--board", "nucleo-l4r5zi", "--state", str(tmp_path)]
    assert run(parser.parse_args(arguments)) == EXIT_USAGE
    assert "--trust" in capsys.readouterr().err


CREDENTIALS = {
    "device": "door-1", "devices": ["door-1"], "prefix": "plant", "node": "gw", "host": "gw.local", "port": 8883, "ca": "",
    "username": "door-1", "password": "secret", "psk_identity": None, "psk_key": None, "trusted_keys": ["ab" * 32],
}  # fmt: skip


def attached(tmp_path: Path, *more: str, **changed: object) -> ClientOptions:
    file = tmp_path / "door-1.json"
    file.write_text(json.dumps(CREDENTIALS | changed))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = ["--credentials", str(file), "--board", "nucleo-l4r5zi", "--state", str(tmp_path / "flash"), *more]
    args = parser.parse_args(arguments)
    given = given_credentials(args)
    assert list(trusted_texts(args, given))[-1] == "ab" * 32
    return client_options(args, given)


def test_a_file_of_credentials_is_all_that_a_board_needs(tmp_path: Path) -> None:
    options = attached(tmp_path)
    assert (options.host, options.port, options.base) == ("gw.local", 8883, "plant/gw/device/door-1")
    assert (options.username, options.password, options.tls) == ("door-1", "secret", None)
    assert "secret" not in repr(options)


def test_an_option_counts_more_than_the_file(tmp_path: Path) -> None:
    options = attached(tmp_path, "--broker", "127.0.0.1:1883", "--id", "door-2", "--username", "hub")
    assert (options.host, options.port, options.device, options.username) == ("127.0.0.1", 1883, "door-2", "hub")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"port": 0}, "port"),
        ({"device": "a/b"}, "device id"),
        ({"trusted_keys": ["x"]}, "trusted_keys"),
        ({"ca": "no certificate"}, "--ca"),
        ({"node": "a/b"}, "one topic level"),
        ({"psk_key": "xyz"}, "psk_key"),
    ],
)
def test_a_bad_file_names_what_is_wrong(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        attached(tmp_path, **changed)


def test_credentials_that_a_board_over_lwm2m_cannot_use_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "door-1.json"
    file.write_text(json.dumps(CREDENTIALS | {"psk_identity": "door-1", "psk_key": "00" * 16}))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flash = str(tmp_path / "flash")
    arguments = ["--credentials", str(file), "--board", "nucleo-l4r5zi", "--state", flash, "--protocol", "lwm2m"]
    assert run(parser.parse_args(arguments)) == EXIT_USAGE
    assert "neither DTLS nor OSCORE" in capsys.readouterr().err


def test_keys_are_read_from_lines_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "trusted.txt"
    file.write_text(f"# ours\n{'ab' * 32}  # signing\n\n{'cd' * 32}\n")
    trusted = list(trusted_keys([str(file), "ef" * 32]))
    assert trusted == [b"\xab" * 32, b"\xcd" * 32, b"\xef" * 32]
