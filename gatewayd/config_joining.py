"""The section `joining` of the config: the devices' credentials, and what they are told of the broker."""

from gatewayd.config_http import Host
from gatewayd.config_types import FilePath, Section
from gatewayd.config_values import Port


class Joining(Section):
    """How devices join. `folder` null: `credentials` in the data folder. `host` null: this machine's name in `.local`.

    `mosquitto_pid_file` null: telling mosquitto of new credentials is somebody else's task.
    """

    folder: FilePath | None = None
    mosquitto_pid_file: FilePath | None = None
    host: Host | None = None
    port: Port = 8883
    ca_file: FilePath | None = None
