"""What cannot be had at start is named with its option and a remedy, and said before anything runs."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.config import Config, ConfigError, load_config, parse_config
from gatewayd.config.files import check_files
from gatewayd.parts import announced, broker_address
from gatewayd.startup import StartRefused, first_line, made_folder
from tests.gateway import gatewayd


@contextmanager
def taken_port(kind: socket.SocketKind) -> Iterator[int]:
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        yield taken.getsockname()[1]


def config_in(folder: Path, text: str) -> Path:
    path = folder / "gatewayd.yaml"
    path.write_text(text)
    return path


def the_critical_line(config: Path) -> str:
    ended = gatewayd("run", "--config", str(config))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if "level=critical" in line]
    return line


@pytest.mark.parametrize(
    ("section", "kind", "rest"),
    [
        ("http", socket.SOCK_STREAM, "coap: {enabled: false}\nlwm2m: {enabled: false}"),
        ("coap", socket.SOCK_DGRAM, "http: {port: 0}"),
    ],
)
def test_a_port_in_use_names_its_option(tmp_path: Path, section: str, kind: socket.SocketKind, rest: str) -> None:
    with taken_port(kind) as port:
        line = the_critical_line(
            config_in(tmp_path, f"node: {{data_dir: data}}\n{section}: {{port: {port}}}\n{rest}\n")
        )
    assert f"{section}.port: {port} on 127.0.0.1 cannot be had (Address already in use): free it" in line


@pytest.mark.parametrize(("section", "extra"), [("http", "insecure: true, "), ("coap", "")])
def test_an_address_of_another_machine_names_its_option(tmp_path: Path, section: str, extra: str) -> None:
    text = "node: {data_dir: data}\nhttp: {port: 0}\ncoap: {port: 0}\n"
    config = config_in(tmp_path, text.replace(f"{section}: {{", f"{section}: {{host: 192.0.2.1, {extra}"))
    assert f"{section}.host: 192.0.2.1 cannot be listened on" in the_critical_line(config)


def test_a_data_folder_that_cannot_be_made_names_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = the_critical_line(config_in(tmp_path, "node: {data_dir: file/data}"))
    assert f"node.data_dir: {tmp_path / 'file/data'} cannot be made (Not a directory)" in line


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    assert made_folder(tmp_path / "a" / "b", option="node.data_dir").is_dir()


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"\xff\n", "it is not UTF-8")])
def test_a_secret_that_cannot_be_read_names_its_option(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartRefused, match=f"mqtt.password_file: {path} cannot be read .{reason}"):
        first_line(path, option="mqtt.password_file")


def test_only_the_first_line_of_a_secret_counts(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret \ncomment\n")
    assert first_line(tmp_path / "password", option="x") == "secret"


ABSENT = [
    ("mqtt: {username: u, password_file: nope}", "mqtt.password_file: there is no file {folder}/nope"),
    ("mqtt: {username: u, password_file: folder}", "mqtt.password_file: {folder}/folder is not a file"),
    ("mqtt: {tls: {ca_file: nope}}", "mqtt.tls.ca_file: there is no file {folder}/nope"),
    ("mqtt: {tls: {cert_file: here, key_file: nope}}", "mqtt.tls.key_file: there is no file {folder}/nope"),
    ("devices: {profiles_dir: nope}", "devices.profiles_dir: there is no folder {folder}/nope"),
    ("devices: {profiles_dir: folder}", "devices.profiles_dir: {folder}/folder holds no *.yaml"),
    (
        "engines: [{name: litert}, {name: litert, label: other, python: nope}]",
        "engines[1].python: there is no {folder}/nope",
    ),
    ("engines: [{name: litert, python: here}]", "engines[0].python: {folder}/here is no program"),
    (
        "{http: {port: 1900}, mqtt: {embedded: {enabled: true, port_v5: 1900}}}",
        "http.port: 1900 is mqtt.embedded.port_v5 too: give one of them another port",
    ),
]


@pytest.fixture
def problems(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    (tmp_path / "here").touch()
    (tmp_path / "folder").mkdir()

    def look(text: str) -> tuple[str, ...]:
        try:
            check_files(load_config(config_in(tmp_path, text)), source="c", environ={})
        except ConfigError as error:
            return error.problems
        return ()

    return look


@pytest.mark.parametrize(("text", "message"), ABSENT, ids=[message for _, message in ABSENT])
def test_what_a_config_names_has_to_be_there(
    problems: Callable[[str], tuple[str, ...]], tmp_path: Path, text: str, message: str
) -> None:
    (problem,) = problems(text)
    assert problem.startswith(message.format(folder=tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mqtt: {username: u, password_file: here, tls: {ca_file: here}}",
        "mqtt: {username: u, password_file: /run/credentials/gatewayd.service/mqtt-password}",
        "{http: {port: 1883}, mqtt: {embedded: {enabled: false}}}",
        "{http: {port: 1883, host: 192.0.2.1, insecure: true}, mqtt: {embedded: {enabled: true}}}",
        "engines: [{name: litert, python: null}]",
    ],
)
def test_nothing_is_wrong_with_it(problems: Callable[[str], tuple[str, ...]], text: str) -> None:
    assert problems(text) == ()


def test_check_config_and_run_tell_of_all_that_is_absent(tmp_path: Path) -> None:
    config = config_in(tmp_path, "mqtt: {tls: {ca_file: nope}}\ndevices: {profiles_dir: nope}\n")
    for arguments in (["--check-config", str(config)], ["run", "--config", str(config)]):
        ended = gatewayd(*arguments)
        assert ended.returncode == 1
        assert re.findall(r"^  (\S+): there is no", ended.stderr, re.MULTILINE) == [
            "mqtt.tls.ca_file",
            "devices.profiles_dir",
        ]


def parsed(text: str) -> Config:
    return parse_config(text, source="x", folder=Path("/etc"))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", f"{socket.gethostname()}.local", 1883),
        ("mqtt: {host: broker.lan, port: 1885}", "broker.lan", 1885),
        ("joining: {host: gw.lan, port: 8883}", "gw.lan", 8883),
        ("mqtt: {embedded: {enabled: true, port: 2883}}", "127.0.0.1", 2883),
    ],
)
def test_devices_are_told_where_the_broker_is_for_them(text: str, host: str, port: int) -> None:
    told = broker_address(parsed(text))
    assert (told.host, told.port, told.ca) == (host, port, "")


def test_of_an_authoritys_file_only_the_certificates_are_told(tmp_path: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_text(f'Subject: "x"\r\n{pem}\nprinted by a tool\n{pem.rstrip()}')
    told = broker_address(parsed(f"joining: {{ca_file: {tmp_path / 'ca.pem'}}}"))
    assert (told.ca, told.port) == (pem * 2, 8883)


def test_only_what_others_can_reach_is_announced() -> None:
    ports = {"http_port": 8443, "coap_port": 5683}
    assert [each.kind for each in announced(parsed("node: {name: gw}"), ports)] == ["_mqtt._tcp"]
    text = "node: {name: gw}\nhttp: {host: 0.0.0.0, insecure: true}\ncoap: {host: '::'}"
    told = announced(parsed(text), ports)
    assert [(each.kind, each.name, each.port, each.told.get("tls")) for each in told] == [
        ("_mqtt._tcp", "gw", 1883, "0"),
        ("_gatewayd._tcp", "gw", 8443, "0"),
        ("_coap._udp", "gw", 5683, None),
    ]
