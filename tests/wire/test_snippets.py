"""Snippets that are pasted into firmware: a compiler reads the C ones, with stand-ins for the headers of the frameworks."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from gatewayd.core.names import DeviceId
from gatewayd.wire.device_credentials import DeviceCredentials, OscoreCredentials
from gatewayd.wire.snippets import SNIPPETS, snippet
from gatewayd.wire.topics import Topics

DOOR = DeviceId("door-1")
FULL = DeviceCredentials(
    DOOR, (DOOR,), Topics('pl"ant\\', "gw"), "gw.local", 8883, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "door-1", "pass_word-1", "door-1", bytes(range(16)), ("ab" * 32, "cd" * 32),
    OscoreCredentials(b"\xa5" * 16, b"saltsalt", b"\1\2\3", b"gw"),
)  # fmt: skip
PLAIN = dataclasses.replace(FULL, ca="")

ESP_IDF = """
typedef struct {
    struct { struct { const char *uri; } address; struct { const char *certificate; } verification; } broker;
    struct { const char *client_id, *username; struct { const char *password; } authentication; } credentials;
    struct { struct { const char *topic, *msg; int qos, retain; } last_will; int keepalive; } session;
} esp_mqtt_client_config_t;
"""
ZEPHYR = """
#include <stddef.h>
struct mqtt_utf8 { const char *utf8; size_t size; };
#define MQTT_UTF8_LITERAL(literal) ((struct mqtt_utf8){literal, sizeof(literal) - 1})
"""
ARDUINO = """
struct WiFiClient {};
struct WiFiClientSecure : WiFiClient { void setCACert(const char *) {} };
struct PubSubClient {
    PubSubClient(WiFiClient &) {}
    void setServer(const char *, int) {}
    bool connect(const char *, const char *, const char *, const char *, int, bool, const char *) { return true; }
    bool subscribe(const char *, int) { return true; }
};
"""


@pytest.mark.parametrize(
    ("name", "headers", "language"), [("esp-idf", ESP_IDF, "c"), ("zephyr", ZEPHYR, "c"), ("arduino", ARDUINO, "c++")]
)
@pytest.mark.parametrize("of", [FULL, PLAIN], ids=["tls", "plain"])
def test_a_compiler_reads_it(tmp_path: Path, name: str, headers: str, language: str, of: DeviceCredentials) -> None:
    compiler = shutil.which("g++" if language == "c++" else "gcc")
    if compiler is None:
        pytest.skip("no gcc or g++ here (Debian: apt install g++)")
    source = tmp_path / "snippet"
    source.write_text(headers + snippet(name, of) + "int main(void) { return 0; }\n")
    command = [compiler, "-x", language, "-Wall", "-Werror", "-Wno-unused-variable", "-Wno-unused-function"]
    done = subprocess.run(
        [*command, "-fsyntax-only", str(source)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_each_says_who_the_device_is() -> None:
    for name in SNIPPETS:
        assert ("a5" * 16 if name == "libcoap" else "pass_word-1") in snippet(name, FULL)


def test_a_key_alone_has_a_part_in_zephyr_only() -> None:
    key = dataclasses.replace(FULL, username="", password="", oscore=None)
    assert [name for name in SNIPPETS if snippet(name, key)] == ["zephyr"]
    assert "0x00, 0x01, 0x02" in snippet("zephyr", key)


def test_an_oscore_context_alone_is_for_zephyr_and_libcoap() -> None:
    only = dataclasses.replace(FULL, username="", password="", psk_identity="", psk_key=b"")
    assert [name for name in SNIPPETS if snippet(name, only)] == ["zephyr", "libcoap"]
    assert "gatewayd_oscore_sender[] = {0x01, 0x02, 0x03}" in snippet("zephyr", only)
    assert "psk" not in snippet("zephyr", only)
    assert 'sender_id,hex,"010203"' in snippet("libcoap", only)


def test_the_shells_line_has_its_secret_in_no_argument(tmp_path: Path) -> None:
    fake = tmp_path / "mosquitto_pub"
    fake.write_text('#!/bin/sh\necho "arguments: $*"; cat "$XDG_CONFIG_HOME/mosquitto_pub"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", "-euc", snippet("mosquitto", FULL)], capture_output=True, text=True, timeout=10, check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    arguments, *options = done.stdout.splitlines()
    assert arguments == 'arguments: -q 1 -t pl"ant\\/gw/device/door-1/up/pong -m 0000'
    assert options[:5] == ["-h gw.local", "-p 8883", "-u door-1", "-P pass_word-1", "-V 5"]
    assert (options[5].startswith("--cafile /"), options[6]) == (True, "connected")
