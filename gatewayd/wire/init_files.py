"""The files that `gatewayd init` writes, as text: the config, mosquitto's, systemd's drop-in. Nothing is written here."""

import json
from pathlib import Path

from gatewayd.core.record import record
from gatewayd.wire.topics import Topics


@record
class Plan:
    """What was asked for. `is_open`: listen on the network, not on loopback alone. `is_service`: systemd runs both daemons.

    `folder` holds what init writes, `data_dir` is the daemon's, `host` what devices and clients call this machine, `user` who
    runs mosquitto (without systemd).
    """

    folder: Path
    data_dir: Path
    node: str
    host: str
    user: str
    is_open: bool = False
    is_service: bool = False
    http_port: int = 8443
    mqtt_port: int = 1883
    devices_port: int = 8883
    clients_port: int = 8884
    coap_port: int = 5683
    prefix: str = "gatewayd"
    reply_prefixes: tuple[str, ...] = ("gatewayd-reply/", "reply/")

    @property
    def topics(self) -> Topics:
        """The node's topics, and so the access lists."""
        return Topics(self.prefix, self.node)

    @property
    def broker(self) -> Path:
        """Where what mosquitto reads is."""
        return self.folder / "mosquitto"

    @property
    def devices(self) -> Path:
        """Where mosquitto reads the devices' passwords: the daemon's own folder, or where a service of root's copies them."""
        return self.broker if self.is_service else self.data_dir / "credentials"

    @property
    def secrets(self) -> Path:
        """Where the daemon reads its secrets: systemd hands them to it as credentials."""
        return Path("/run/credentials/gatewayd.service") if self.is_service else self.folder

    @property
    def pid_file(self) -> Path | None:
        """Where mosquitto says who it is; None: the daemon may not signal it."""
        return None if self.is_service else self.broker / "mosquitto.pid"

    @property
    def daemon_user(self) -> str:
        """The daemon's own user at the broker."""
        return f"gatewayd-{self.node}"


def config_text(plan: Plan) -> str:
    """Return the config of the daemon; every option it leaves out keeps its default."""
    listen = "0.0.0.0" if plan.is_open else "127.0.0.1"  # noqa: S104 - what was asked for, with TLS and tokens
    return f"""\
# Written by `gatewayd init`. Every option is explained in the sample config/gatewayd.yaml; check changes with
# `gatewayd --check-config`.

node:
  name: {_q(plan.node)}
  data_dir: {_q(plan.data_dir)}

# The broker on this machine, over loopback, with a user of our own.
mqtt:
  host: 127.0.0.1
  port: {plan.mqtt_port}
  username: {_q(plan.daemon_user)}
  password_file: {_q(plan.secrets / "mqtt-password")}

http:
  host: {listen}
  port: {plan.http_port}
  hosts: [{_q(plan.host)}]
  tls:
    cert_file: {_q(plan.folder / "http.pem")}
    key_file: {_q(plan.secrets / "http-key")}
  tokens_file: {_q(plan.secrets / "http-tokens")}

# CoAP has no access control without DTLS: loopback only.
coap:
  host: 127.0.0.1
  port: {plan.coap_port}

devices:
  join: approve

joining:
  mosquitto_pid_file: {_q(plan.pid_file) if plan.pid_file else "null"}
  host: {_q(plan.host)}
  port: {plan.devices_port}
  ca_file: {_q(plan.folder / "ca.pem")}
"""


def listeners_text(plan: Plan) -> str:
    """Return mosquitto's part: a listener each for gatewayd, devices and clients.

    One for each, because a password file belongs to a listener: a device's password opens the devices' door only. There,
    a client's id is its user's name, so that no device can take another's session.
    """
    address = "" if plan.is_open else " 127.0.0.1"
    certificate = f"cafile {plan.folder}/ca.pem\ncertfile {plan.broker}/broker.pem\nkeyfile {plan.broker}/broker.key\n"
    tls = f"{certificate}tls_version tlsv1.2\n"
    clients = f"allow_anonymous false\npassword_file {plan.broker}/clients.passwd\nacl_file {plan.broker}/clients.acl\n"
    return f"""\
# Written by `gatewayd init`, for mosquitto 2.0 or newer: include it from mosquitto.conf, or link it into conf.d.
per_listener_settings true

# Small QoS 1 messages wait 44 to 88 ms for each other without this.
set_tcp_nodelay true
# What the broker keeps for those who are away: without a bound a lost device fills the disk.
persistent_client_expiration 7d
max_queued_messages 1000
max_packet_size 1114112

# gatewayd itself, and clients on this machine.
listener {plan.mqtt_port} 127.0.0.1
{clients}
# Devices.
listener {plan.devices_port}{address}
allow_anonymous false
use_username_as_clientid true
password_file {plan.devices}/devices.passwd
acl_file {plan.devices}/devices.acl
{tls}
# People and programs on other machines.
listener {plan.clients_port}{address}
{clients}{tls}"""


def broker_text(plan: Plan) -> str:
    """Return a whole mosquitto.conf, for a mosquitto of the same user as the daemon."""
    return f"""\
# Written by `gatewayd init`: mosquitto -c {plan.broker}/mosquitto.conf
user {plan.user}
pid_file {plan.broker}/mosquitto.pid
persistence true
persistence_location {plan.broker}/
log_dest stderr
include_dir {plan.broker}/conf.d
"""


def drop_in_text(plan: Plan) -> str:
    """Return systemd's drop-in that hands the daemon its secrets."""
    names = ("mqtt-password", "http-tokens", "http-key")
    return "[Service]\n" + "".join(f"LoadCredential={name}:{plan.folder}/{name}\n" for name in names)


def _q(value: object) -> str:
    """Return a text as YAML reads it whatever it holds: JSON is YAML."""
    return json.dumps(str(value), ensure_ascii=False)
