import pytest

from gatewayd.config import Config
from gatewayd.listeners import listeners, udp_address, wants_dtls
from gatewayd.parts import doors


def config(**sections: object) -> Config:
    return Config.model_validate(sections)


def told(**sections: object) -> list[str]:
    return [str(each) for each in listeners(config(**sections))]


HTTP = "127.0.0.1:8080/tcp  http: clients and operators, no TLS"
SHARED = "127.0.0.1:5683/udp  coap: clients, unprotected; lwm2m: devices, unprotected or with OSCORE"
DTLS = "127.0.0.1:5684/udp  lwm2m: devices, with DTLS"


def test_by_itself() -> None:
    assert told() == [HTTP, SHARED, f"{DTLS}, if there is a key for it at the start"]


@pytest.mark.parametrize(
    ("coap", "lwm2m", "udp"),
    [
        ({"enabled": False}, {}, []),
        ({"enabled": False}, {"port": 5683}, ["127.0.0.1:5683/udp  lwm2m: devices, unprotected or with OSCORE"]),
        ({}, {"enabled": False}, ["127.0.0.1:5683/udp  coap: clients, unprotected"]),
        ({"enabled": False}, {"enabled": False}, []),
        (
            {},
            {"host": "::", "port": 5783},
            ["127.0.0.1:5683/udp  coap: clients, unprotected", "[::]:5783/udp  lwm2m: devices, with OSCORE only"],
        ),
        ({"host": "0.0.0.0"}, {}, ["0.0.0.0:5683/udp  coap: clients, unprotected; lwm2m: devices, with OSCORE only"]),  # noqa: S104 - told, not opened
        (
            {"host": "0.0.0.0"},  # noqa: S104 - as above
            {"plain": True},
            ["0.0.0.0:5683/udp  coap: clients, unprotected; lwm2m: devices, unprotected or with OSCORE"],
        ),
    ],
)
def test_devices_and_clients_are_switched_by_themselves(
    coap: dict[str, object], lwm2m: dict[str, object], udp: list[str]
) -> None:
    assert told(coap=coap, lwm2m={"dtls": "never", **lwm2m}) == [HTTP, *udp]


def test_dtls_with_and_without_keys() -> None:
    assert [wants_dtls(config(lwm2m={"dtls": each}), has_keys=False) for each in ("auto", "always", "never")] == [
        False, True, False,
    ]  # fmt: skip
    assert [wants_dtls(config(lwm2m={"dtls": each}), has_keys=True) for each in ("auto", "always", "never")] == [
        True, True, False,
    ]  # fmt: skip
    assert not wants_dtls(config(lwm2m={"enabled": False, "dtls": "always"}), has_keys=True)
    assert told(lwm2m={"dtls": "always"})[-1] == DTLS


def test_where_devices_come() -> None:
    assert udp_address(config()) == ("127.0.0.1", 5683)
    assert udp_address(config(coap={"enabled": False})) is None


def test_what_is_missing_for_dtls_is_told() -> None:
    (*_, last) = listeners(config(), has_dtls=False)
    assert str(last).endswith("at the start (python-mbedtls is missing: pip install 'gatewayd[dtls]')")


@pytest.mark.parametrize(
    ("sections", "psk", "oscore"),
    [
        ({}, "as there was no key when the gateway started: restart the gateway", ""),
        ({"lwm2m": {"dtls": "never"}}, "lwm2m.dtls is never", ""),
        ({"lwm2m": {"enabled": False}}, "set lwm2m.enabled to true", "set lwm2m.enabled to true"),
        ({"coap": {"enabled": False}}, "DTLS does not listen", "set lwm2m.port"),
    ],
)
def test_why_new_credentials_would_be_of_no_use(sections: dict[str, object], psk: str, oscore: str) -> None:
    pytest.importorskip("mbedtls", reason="python-mbedtls is not installed: another reason comes first")
    found = doors(config(**sections))
    assert psk in found.psk
    assert (found.oscore == "") == (oscore == "")
    assert oscore in found.oscore
