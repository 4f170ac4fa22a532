"""Credentials as source code to paste: ESP-IDF, Zephyr, Arduino; test lines for mosquitto's and libcoap's own clients.

Names, passwords and keys hold no character that a C string would take for its own; the topics' prefix and the host may, and are
escaped. Sources: ESP-IDF programming guide (esp-mqtt 5.x), Zephyr documentation (MQTT, TLS credentials, LwM2M), Arduino's
PubSubClient, coap-oscore-conf(5) of libcoap 4.3.4; OMA LwM2M Core 1.2 for the objects 0 and 21.
"""

import shlex
from collections.abc import Callable, Mapping

from gatewayd.wire.device_credentials import DeviceCredentials, OscoreCredentials

OFFLINE = r"{\"state\":\"offline\"}"


def snippet(name: str, of: DeviceCredentials) -> str:
    """Return the snippet of that name, one of `SNIPPETS`; "" where these credentials have no part in it."""
    return SNIPPETS[name](of)


def _esp_idf(of: DeviceCredentials) -> str:
    if not of.username:
        return ""
    scheme = "mqtts" if of.ca else "mqtt"
    ca = "    .broker.verification.certificate = gatewayd_ca,\n" if of.ca else ""
    return (
        f"{_certificate(of)}"
        "static const esp_mqtt_client_config_t gatewayd_mqtt = {\n"
        f'    .broker.address.uri = "{scheme}://{_c(_in_uri(of.host))}:{of.port}",\n'
        f"{ca}"
        f'    .credentials.client_id = "{of.username}",\n'
        f'    .credentials.username = "{of.username}",\n'
        f'    .credentials.authentication.password = "{of.password}",\n'
        f'    .session.last_will = {{.topic = "{_c(of.base)}/up/status", .msg = "{OFFLINE}", .qos = 1, .retain = 1}},\n'
        "    .session.keepalive = 30,\n"
        "};\n"
        f"{_topics(of)}{_trusted(of)}"
    )


def _zephyr(of: DeviceCredentials) -> str:
    broker = ""
    if of.username:
        tag = "#define GATEWAYD_CA_TAG 1\n" if of.ca else ""
        add = (
            "/* once, before connecting: tls_credential_add(GATEWAYD_CA_TAG, TLS_CREDENTIAL_CA_CERTIFICATE,\n"
            "   gatewayd_ca, sizeof(gatewayd_ca)); the socket's TLS_SEC_TAG_LIST is then { GATEWAYD_CA_TAG },\n"
            "   its TLS_HOSTNAME is GATEWAYD_HOST */\n"
        )
        broker = (
            f"{_certificate(of)}{tag}{add if of.ca else ''}"
            f'#define GATEWAYD_HOST "{_c(of.host)}"\n#define GATEWAYD_PORT {of.port}\n'
            f'static struct mqtt_utf8 gatewayd_user = MQTT_UTF8_LITERAL("{of.username}");\n'
            f'static struct mqtt_utf8 gatewayd_password = MQTT_UTF8_LITERAL("{of.password}");\n'
            f"/* client.client_id = gatewayd_user; client.user_name = &gatewayd_user; client.password = &gatewayd_password; */\n"
            f"{_topics(of)}"
        )
    return f"{broker}{_zephyr_psk(of)}{_zephyr_oscore(of.oscore)}{_trusted(of)}"


def _zephyr_psk(of: DeviceCredentials) -> str:
    if not of.psk_identity:
        return ""
    return (
        "#define GATEWAYD_PSK_TAG 2\n"
        f'static const char gatewayd_psk_id[] = "{of.psk_identity}";\n'
        f"static const unsigned char gatewayd_psk[] = {{{_bytes(of.psk_key)}}};\n"
        "/* once, for CoAP over DTLS: tls_credential_add(GATEWAYD_PSK_TAG, TLS_CREDENTIAL_PSK_ID, gatewayd_psk_id,\n"
        "   sizeof(gatewayd_psk_id) - 1); tls_credential_add(GATEWAYD_PSK_TAG, TLS_CREDENTIAL_PSK, gatewayd_psk,\n"
        "   sizeof(gatewayd_psk)); */\n"
    )


def _zephyr_oscore(of: OscoreCredentials | None) -> str:
    if of is None:
        return ""
    names = ("secret", "sender", "recipient", "aead", "hmac", "salt")
    values = (of.master_secret, of.sender_id, of.recipient_id, None, None, of.master_salt)
    arrays = "".join(
        f"static unsigned char gatewayd_oscore_{name}[] = {{{_bytes(value)}}};\n"
        for name, value in zip(names, values, strict=True)
        if value is not None
    )
    sets = "".join(
        f"   lwm2m_set_opaque(&LWM2M_OBJ(21, 0, {number}), (char *)gatewayd_oscore_{name}, sizeof(gatewayd_oscore_{name}));\n"
        for number, (name, value) in enumerate(zip(names, values, strict=True))
        if value is not None
    )
    return (
        f"{arrays}/* once, for CoAP with OSCORE (object 21; security mode 3, NoSec, in object 0: OSCORE needs no DTLS):\n"
        f"{sets}   lwm2m_set_u8(&LWM2M_OBJ(0, 0, 2), 3); object 0's resource 17 links to 21:0 */\n"
    )


def _libcoap(of: DeviceCredentials) -> str:
    """Return the file that libcoap's client takes with -E (libcoap 4.3.2 or newer, built with OSCORE)."""
    if of.oscore is None:
        return ""
    return (
        f'master_secret,hex,"{of.oscore.master_secret.hex()}"\n'
        f'master_salt,hex,"{of.oscore.master_salt.hex()}"\n'
        f'sender_id,hex,"{of.oscore.sender_id.hex()}"\n'
        f'recipient_id,hex,"{of.oscore.recipient_id.hex()}"\n'
        "aead_alg,integer,10\nhkdf_alg,integer,-10\nreplay_window,integer,32\n"
    )


def _arduino(of: DeviceCredentials) -> str:
    if not of.username:
        return ""
    client = "WiFiClientSecure" if of.ca else "WiFiClient"
    secure = "  gatewayd_net.setCACert(gatewayd_ca);\n" if of.ca else ""
    return (
        f"{_certificate(of)}{_topics(of)}{_trusted(of)}"
        f"static {client} gatewayd_net;\n"
        "static PubSubClient gatewayd_mqtt(gatewayd_net);\n"
        "static bool gatewayd_connect() {\n"
        f"{secure}"
        f'  gatewayd_mqtt.setServer("{_c(of.host)}", {of.port});\n'
        f'  return gatewayd_mqtt.connect("{of.username}", "{of.username}", "{of.password}",\n'
        f'                               GATEWAYD_UP "status", 1, true, "{OFFLINE}") &&\n'
        '         gatewayd_mqtt.subscribe(GATEWAYD_DOWN "+", 1);\n'
        "}\n"
    )


def _mosquitto(of: DeviceCredentials) -> str:
    """The password goes into a file, by a builtin of the shell: an argument is seen by everyone on the machine."""
    if not of.username:
        return ""
    secure = f"printf '%s' {shlex.quote(of.ca)} > \"$d/ca.pem\"\n" if of.ca else ""
    cafile = ' "--cafile $d/ca.pem"' if of.ca else ""
    options = " ".join(
        shlex.quote(each)
        for each in (f"-h {of.host}", f"-p {of.port}", f"-u {of.username}", f"-P {of.password}", "-V 5")
    )
    return (
        f"d=$(mktemp -d)\n{secure}"
        f"printf '%s\\n' {options}{cafile} > \"$d/mosquitto_pub\"\n"
        f'XDG_CONFIG_HOME="$d" mosquitto_pub -q 1 -t {shlex.quote(of.base + "/up/pong")} -m 0000 && echo connected\n'
        'rm -r "$d"\n'
    )


SNIPPETS: Mapping[str, Callable[[DeviceCredentials], str]] = {
    "esp-idf": _esp_idf,
    "zephyr": _zephyr,
    "arduino": _arduino,
    "mosquitto": _mosquitto,
    "libcoap": _libcoap,
}


def _certificate(of: DeviceCredentials) -> str:
    if not of.ca:
        return ""
    lines = "\n".join(f'    "{line}\\n"' for line in of.ca.strip().splitlines())
    return f"static const char gatewayd_ca[] =\n{lines};\n"


def _topics(of: DeviceCredentials) -> str:
    return f'#define GATEWAYD_UP "{_c(of.base)}/up/"\n#define GATEWAYD_DOWN "{_c(of.base)}/down/"\n'


def _trusted(of: DeviceCredentials) -> str:
    rows = "".join(f"    {{{_bytes(bytes.fromhex(key))}}},\n" for key in of.trusted_keys)
    return f"static const unsigned char gatewayd_keys[][32] = {{\n{rows}}};\n" if rows else ""


def _c(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _bytes(content: bytes) -> str:
    return ", ".join(f"0x{byte:02x}" for byte in content)


def _in_uri(host: str) -> str:
    return f"[{host}]" if ":" in host else host
