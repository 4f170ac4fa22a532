"""What `gatewayd init` tells at its end: what to do now, as commands to paste. Text of values only."""

import shlex

from gatewayd.core.record import record
from gatewayd.wire.init_files import Plan

_AS_ROOT = "Both daemons would run as root like this: run init as a user of their own, or with --systemd."


@record
class Outcome:
    """What is in the folder now. `is_first`: there was no config before; `is_changed`: something was written or replaced.

    `url` is the HTTP API as this machine reaches it, `elsewhere` as others do ("": they do not); `asks_token`: it asks for one.
    The rest says which files are there: the administrator's token, the authority's certificate and key, the operator's password.
    """

    is_first: bool
    is_changed: bool
    url: str
    elsewhere: str = ""
    has_token: bool = True
    asks_token: bool = True
    has_ca: bool = True
    has_operator: bool = True
    has_ca_key: bool = True


def next_steps(plan: Plan, outcome: Outcome) -> list[str]:
    """Return what to do now."""
    folder = shlex.quote(str(plan.folder))
    if outcome.is_first:
        devices = ["gatewayd devices credentials new door-1 --save door-1.json", "gatewayd devices permit-join 120"]
        steps = ["Next:", *_indented([*_start(plan, folder), *_access(folder, outcome), *devices])]
    elif outcome.is_changed:
        restart = "# both daemons read what changed when they start: end them, then"
        again = ["sudo systemctl restart mosquitto gatewayd"] if plan.is_service else [restart, *_start(plan, folder)]
        handed = _service_files(folder) if plan.is_service else []
        steps = ["Next:", *_indented([*handed, *again, *_access(folder, outcome)])]
    else:
        already = f"{folder} holds all of it already; nothing was changed."
        steps = [already, "As it stands there:", *_indented(_access(folder, outcome))]
    return [*steps, *_by_hand(plan, folder, outcome)]


def _by_hand(plan: Plan, folder: str, outcome: Outcome) -> list[str]:
    ports = f"port {plan.mqtt_port} here, {plan.clients_port} (TLS) from elsewhere"
    password = f"password in {folder}/operator-password, " if outcome.has_operator else ""
    is_root = plan.user == "root" and not plan.is_service
    token = f"gatewayd token NAME --role operator --add-to {folder}/http-tokens"
    return [
        *([f"From elsewhere: {outcome.elsewhere}, with ca.pem and a token ({token})."] if outcome.elsewhere else []),
        f"MQTT by hand: user operator, {password}answers under reply/operator/, {ports}.",
        f"Who may do more: gatewayd mqtt-user NAME --role admin --dir {folder}",
        *([_AS_ROOT] if is_root else []),
        *(
            [f"Keep {folder}/ca.key to yourself: whoever has it can pose as this gateway."]
            if outcome.has_ca_key
            else []
        ),
    ]


def _start(plan: Plan, folder: str) -> list[str]:
    if plan.is_service:
        return [
            *_service_files(folder),
            "sudo systemctl daemon-reload && sudo systemctl restart mosquitto",
            "sudo systemctl enable --now gatewayd gatewayd-mosquitto.path",
        ]
    return [
        f"mosquitto -c {folder}/mosquitto/mosquitto.conf &",
        f"gatewayd run --config {folder}/gatewayd.yaml &",
    ]


def _access(folder: str, outcome: Outcome) -> list[str]:
    token = [f"GATEWAYD_TOKEN_FILE={folder}/admin-token"] if outcome.has_token and outcome.asks_token else []
    authority = [f"GATEWAYD_CA={folder}/ca.pem"] if outcome.has_ca and outcome.url.startswith("https:") else []
    elsewhere = "# admin-token is not here any more: set GATEWAYD_TOKEN_FILE to where it is kept"
    return [
        " ".join([f"export GATEWAYD_URL={shlex.quote(outcome.url)}", *token, *authority]),
        *([elsewhere] if outcome.asks_token and not outcome.has_token else []),
        "gatewayd status",
    ]


def _service_files(folder: str) -> list[str]:
    """Return the steps that hand over to systemd and Debian's mosquitto; from a checkout, as root."""
    units, drop_in = "/etc/systemd/system", "gatewayd.service.d/secrets.conf"
    return [
        f"sudo chown -R mosquitto: {folder}/mosquitto",
        f"sudo ln -sf {folder}/mosquitto/conf.d/gatewayd.conf /etc/mosquitto/conf.d/gatewayd.conf",
        f"sudo install -D -m 644 {folder}/{drop_in} {units}/{drop_in}",
        f"sudo install -m 644 systemd/*.service systemd/*.path {units}/",
    ]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
