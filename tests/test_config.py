"""A config file: what it means, and every problem of a bad one with its path and a remedy."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from gatewayd.config import Config, ConfigError, load_config, parse_config
from gatewayd.core.cost import Weights
from gatewayd.core.presets import PRESETS
from gatewayd.core.request import Privacy
from gatewayd.core.update import Limits
from gatewayd.parts import engine_specs
from gatewayd.wire.strict_yaml import MAX_YAML_BYTES

SAMPLE = Path(__file__).parents[1] / "config" / "gatewayd.yaml"
FOLDER = Path("/etc/gatewayd")


def parse(text: str) -> Config:
    return parse_config(text, source="gatewayd.yaml", folder=FOLDER)


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.problems


def test_the_sample_holds_the_defaults() -> None:
    assert load_config(SAMPLE) == parse("")


def test_the_sample_mentions_every_option() -> None:
    text = SAMPLE.read_text()
    missing = [name for name in options(Config) if not re.search(rf"^[ #-]*{name}:|[{{ ]{name}:", text, re.MULTILINE)]
    assert missing == []


def options(section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield name
        for inner in sections_in(field.annotation):
            yield from options(inner)


def sections_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_in(inner)


def test_an_empty_file_listens_on_loopback_only() -> None:
    config = parse("")
    assert {config.mqtt.host, config.http.host, config.coap.host} == {"127.0.0.1"}
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", config.node.name)


def test_a_section_left_empty_holds_its_defaults() -> None:
    assert parse("mqtt:\nlog:\nnode: {name: null}") == parse("")


def test_values_arrive_as_written() -> None:
    config = parse(
        "node: {name: gw-7, data_dir: state}\n"
        "mqtt: {version: 5, username: gw, password_file: /run/pw, tls: {}, reply_prefixes: [answers/]}\n"
        "engines: [{name: tflite-runtime, python: venv/bin/python}, {name: litert}]\n"
        "http: {port: 0}\n"
    )
    assert (config.node.name, config.node.data_dir) == ("gw-7", FOLDER / "state")
    assert (config.mqtt.version, config.mqtt.password_file) == ("5", Path("/run/pw"))
    assert config.mqtt.tls is not None
    assert config.mqtt.tls.ca_file is None
    assert config.mqtt.reply_prefixes == ("answers/",)
    assert [(engine.name, engine.python) for engine in config.engines] == [
        ("tflite-runtime", FOLDER / "venv/bin/python"),
        ("litert", None),
    ]
    assert config.http.port == 0


def test_classes_of_the_file_join_the_built_in_ones() -> None:
    text = "requests: {classes: {fast: {energy_per_uj: 0}, night: {latency_per_s: 1, max_queue_ms: 250}, private: {}}}"
    classes = parse(text).requests.settings
    weights = {name: each.weights for name, each in classes.items()}
    assert set(weights) == {"default", "fast", "battery", "airtime", "private", "night"}
    assert weights["default"] == Weights()
    assert weights["fast"] == Weights(energy_per_uj=0)
    assert weights["night"] == Weights(latency_per_s=1)
    assert classes["night"].max_queue_s == 0.25
    assert classes["private"].privacy is Privacy.STAY_ON_DEVICE
    assert parse("requests: {classes: {private: {privacy: any}}}").requests.settings["private"].privacy is Privacy.ANY


def test_every_built_in_class_is_in_the_sample_as_it_is() -> None:
    text = (Path(__file__).parents[1] / "config" / "gatewayd.yaml").read_text()
    assert parse(text).requests.settings == PRESETS


def test_push_deadlines_become_the_state_machines() -> None:
    assert parse("").pushes.limits == Limits()
    text = "pushes: {offer_s: 1, stall_s: 2, verify_s: 3, self_test_s: 4, trial_s: 5, absence_s: 6, transfer_s: 7}"
    expected = Limits(offer_s=1, stall_s=2, verify_s=3, self_test_s=4, trial_s=5, absence_s=6, transfer_s=7)
    assert parse(text).pushes.limits == expected


def test_a_config_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse("").http.port = 1  # type: ignore[misc]  # the checker refuses it too, and that is the point


FOUR_MISTAKES = """\
mqtt:
  port: 99999
  hots: broker
engines:
  - name: torch
devices:
  join: no
"""


def test_all_four_mistakes_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(FOUR_MISTAKES)
    assert str(caught.value) == (
        "gatewayd.yaml: 4 problems\n"
        "  mqtt.port: 99999 is too large (1–65535)\n"
        "  mqtt.hots: unknown key, did you mean 'host'?\n"
        "  engines[0].name: 'torch' is none of 'litert', 'tflite-runtime', 'onnxruntime' or 'openvino'\n"
        "  devices.join: 'no' is none of 'approve' or 'open'"
    )


ONE_MISTAKE = [
    ("mqtt: {port: 0}", "mqtt.port: 0 is too small (1–65535)"),
    ("http: {port: '80'}", "http.port: '80' is not a whole number"),
    ("http: {port: 80.5}", "http.port: 80.5 is not a whole number"),
    ("http: {port: true}", "http.port: True is not a whole number"),
    ("http: 8080", "http: 8080 is not a mapping: write 'key: value' lines below it"),
    (
        "http: {host: 0.0.0.0}",
        "http.insecure: http.host 0.0.0.0 opens the API to the network: give http.tls and http.tokens_file, or write true here",
    ),
    (
        "http: {host: gw.lan, tokens_file: t}",
        "http.insecure: http.host gw.lan opens the API to the network: give http.tls and http.tokens_file, or write true here",
    ),
    ("http: {tls: {cert_file: c}}", "http.tls.key_file: is missing"),
    ("http: {host: 'a b'}", "http.host: 'a b' must be a host name or an IP address (the port is an option of its own)"),
    ("http: {host: 5}", "http.host: 5 is not text: put it in quotes"),
    ("coap: {enabled: off}", "coap.enabled: 'off' is neither true nor false"),
    ("[]", "the file: [] is not a mapping: write 'key: value' lines below it"),
    ("engines: litert", "engines: 'litert' is not a list: write '- …' lines below it"),
    ("engines: [{}]", "engines[0].name: is missing: add it"),
    ("engines: [{name: litert, phyton: x}]", "engines[0].phyton: unknown key, did you mean 'python'?"),
    ("log: {colour: red}", "log.colour: unknown key, known here: level"),
    ("mqtt: {tls: {ca: x}}", "mqtt.tls.ca: unknown key, known here: ca_file, cert_file, key_file"),
    ("mqtt: {tls: {cert_file: x}}", "mqtt.tls.key_file: goes with cert_file: give both, or neither"),
    ("mqtt: {tls: {key_file: x}}", "mqtt.tls.key_file: goes with cert_file: give both, or neither"),
    ("mqtt: {version: 3.1}", "mqtt.version: 3.1 is none of '5', '3.1.1' or 'auto'"),
    ("mqtt: {password_file: x}", "mqtt.password_file: needs mqtt.username: MQTT knows no password without a user"),
    ("mqtt: {password_file: 3}", "mqtt.password_file: 3 is not a path"),
    (
        "mqtt: {prefix: a/#}",
        "mqtt.prefix: 'a/#' must be topic levels without '+', '#', blanks or a '/' at either end",
    ),
    (
        "mqtt: {reply_prefixes: [x]}",
        "mqtt.reply_prefixes[0]: 'x' must be topic levels that end in '/', without '+', '#' or blanks",
    ),
    (
        "mqtt: {prefix: tiny/ml, reply_prefixes: [tiny/]}",
        "mqtt.reply_prefixes: 'tiny/' overlaps with mqtt.prefix: replies could then command devices",
    ),
    (
        "mqtt: {embedded: {port: 7, port_v5: 7}}",
        "mqtt.embedded.port_v5: 7 is mqtt.embedded.port too: the two protocol versions need a port each",
    ),
    (
        "mqtt: {tls: {}, embedded: {enabled: true}}",
        "mqtt.embedded: enabled goes without mqtt.tls: the embedded broker is reached over loopback only",
    ),
    ("node: {name: a/b}", "node.name: 'a/b' must be 1–63 letters, digits, '_', '.' or '-'"),
    ("node: {data_dir: ''}", "node.data_dir: names no file or directory: write a path, or null where that is allowed"),
    (
        'node: {data_dir: "/a\\0/b"}',
        "node.data_dir: names no file or directory: write a path, or null where that is allowed",
    ),
    (
        "requests: {default_deadline_ms: 70000}",
        "requests.max_deadline_ms: 60000 is below requests.default_deadline_ms (70000): raise it, or lower that",
    ),
    (
        "requests: {classes: {fast: {latency_per_s: .inf}}}",
        "requests.classes.fast.latency_per_s: inf is not a finite number",
    ),
    ("requests: {classes: {fast: {latency_per_s: -1}}}", "requests.classes.fast.latency_per_s: -1.0 is too small"),
    (
        "requests: {classes: {fast: {latency_s: 1}}}",
        "requests.classes.fast.latency_s: unknown key, did you mean 'latency_per_s'?",
    ),
    (
        "devices: {ping_every_s: 120}",
        "devices.absent_after_s: 90.0 must be above devices.ping_every_s (120.0): healthy devices would count as absent",
    ),
    ("pushes: {offer_s: soon}", "pushes.offer_s: 'soon' is not a number"),
    ("http: {port: 1}\nhttp: {port: 2}", "line 2, column 1: the key 'http' stands twice, first in line 1: remove one"),
    ("http: {port: 1", "line 1, column 15: expected ',' or '}'"),
]


@pytest.mark.parametrize(("text", "message"), ONE_MISTAKE, ids=[text for text, _ in ONE_MISTAKE])
def test_one_mistake_is_one_problem(text: str, message: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_a_long_key_or_value_does_not_fill_the_screen() -> None:
    (key,) = problems(f"{'k' * 1000}: 1")
    (value,) = problems(f"http: {{port: {'v' * 1000}}}")
    assert len(key) < 300
    assert len(value) < 150


UNREADABLE = [
    (b"\xff\xfe", "byte 0 is not UTF-8: save the file as UTF-8"),
    (b"#" * (MAX_YAML_BYTES + 1), f"the text has over {MAX_YAML_BYTES} bytes"),
]


@pytest.mark.parametrize(("content", "message"), UNREADABLE, ids=["not UTF-8", "too large"])
def test_unreadable_content(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "gatewayd.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(f"{file}: 1 problem\n  {message}")):
        load_config(file)


def test_a_missing_file_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file: copy config/gatewayd"):
        load_config(tmp_path / "absent.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gatewayd.yaml"
    file.write_text("node: {data_dir: state}")
    assert load_config(file).node.data_dir == tmp_path / "state"


def test_engines_with_all_they_may_say() -> None:
    config = parse(
        "engines:\n"
        "  - {name: litert, label: tpu, delegate: {library: libedgetpu.so.1, options: {device: usb}}, accelerator: edgetpu}\n"
        "  - {name: litert}\n"
        "  - {name: onnxruntime, python: /opt/p, providers: [CUDAExecutionProvider, CPUExecutionProvider]}\n"
        "  - {name: openvino, device: GPU, accelerator: intel-gpu}\n"
    )
    tpu, litert, onnx, openvino = engine_specs(config)
    assert (tpu.label, tpu.accelerator) == ("tpu", "edgetpu")
    assert tpu.options() == {"delegate": "libedgetpu.so.1", "delegate_options": {"device": "usb"}}
    assert (litert.label, litert.options()) == ("litert", {})
    assert onnx.options() == {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
    assert openvino.options() == {"device": "GPU"}


@pytest.mark.parametrize(
    ("engine", "problem"),
    [
        ("{name: openvino, delegate: {library: x}}", "engines[0].delegate: goes with litert and tflite-runtime only"),
        ("{name: litert, providers: [x]}", "engines[0].providers: go with onnxruntime only"),
        ("{name: litert, device: GPU}", "engines[0].device: goes with openvino only"),
        ("{name: litert}, {name: litert}", "engines: two entries are called 'litert': give each a label of its own"),
    ],
)
def test_engines_that_make_no_sense(engine: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"engines: [{engine}]")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "http",
    [
        "{host: '::1'}",
        "{host: localhost}",
        "{host: 0.0.0.0, insecure: true}",
        "{host: 0.0.0.0, tokens_file: t, tls: {cert_file: c, key_file: k}}",
    ],
)
def test_the_api_is_opened_to_the_network_only_on_purpose(http: str) -> None:
    assert parse(f"http: {http}").http.port == 8080


def test_tokens_may_come_as_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "http: {host: 0.0.0.0, tls: {cert_file: c, key_file: k}}"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert len(problems(text)) == 1
    (tmp_path / "http-tokens").write_text("")
    assert parse(text).http.tokens_path(None) == tmp_path / "http-tokens"
