"""The objects that gatewayd reads and writes: OMA's own, and its two for machine learning.

Source: OMA LwM2M Core 1.1.1, appendix E (/0 to /5), LwM2M Software Management 1.0.3 (/9), IPSO Smart Objects (/3303 and its
kin share these resources); /26241 and /26242 are docs/lwm2m/26241.xml and 26242.xml, in the range that vendors may reuse.
"""

from collections.abc import Sequence

from gatewayd.wire.lwm2m.definitions import Definitions, ObjectDefinition, Operations, ResourceDefinition
from gatewayd.wire.lwm2m.values import Type

SECURITY, SERVER, DEVICE, MONITORING, FIRMWARE, SOFTWARE = 0, 1, 3, 4, 5, 9
RUNTIME, MODEL = 26241, 26242

R, W, E = Operations.READ, Operations.WRITE, Operations.EXECUTE
RW = R | W
_S, _I, _F, _B, _O, _T, _L = (
    Type.STRING, Type.INTEGER, Type.FLOAT, Type.BOOLEAN, Type.OPAQUE, Type.TIME, Type.OBJLNK,
)  # fmt: skip
_MULTIPLE, _MANDATORY = "multiple", "mandatory"

_Row = tuple[int, str, Type | None, Operations] | tuple[int, str, Type | None, Operations, str]


def _resources(
    *rows: _Row, mandatory: Sequence[int] = (), units: dict[int, str] | None = None
) -> tuple[ResourceDefinition, ...]:
    """Each row: id, name, type, operations, and "multiple" where it is."""
    return tuple(
        ResourceDefinition(
            row[0], row[1], row[2], row[3],
            is_multiple=_MULTIPLE in row[4:], is_mandatory=row[0] in mandatory, units=(units or {}).get(row[0], ""),
        )
        for row in rows
    )  # fmt: skip


_SECURITY = ObjectDefinition(
    SECURITY, "LwM2M Security",
    _resources(
        (0, "LwM2M Server URI", _S, W), (1, "Bootstrap-Server", _B, W), (2, "Security Mode", _I, W),
        (3, "Public Key or Identity", _O, W), (4, "Server Public Key", _O, W), (5, "Secret Key", _O, W),
        (10, "Short Server ID", _I, W), (11, "Client Hold Off Time", _I, W), (17, "OSCORE Security Mode", _L, W),
    ),
    is_multiple=True, is_mandatory=True, version="1.1",
)  # fmt: skip
_SERVER = ObjectDefinition(
    SERVER, "LwM2M Server",
    _resources(
        (0, "Short Server ID", _I, R), (1, "Lifetime", _I, RW), (2, "Default Minimum Period", _I, RW),
        (3, "Default Maximum Period", _I, RW), (4, "Disable", None, E), (5, "Disable Timeout", _I, RW),
        (6, "Notification Storing When Disabled or Offline", _B, RW), (7, "Binding", _S, RW),
        (8, "Registration Update Trigger", None, E), (23, "Mute Send", _B, RW),
        mandatory=(0, 1, 6, 7, 8), units={1: "s", 2: "s", 3: "s", 5: "s"},
    ),
    is_multiple=True, is_mandatory=True, version="1.1",
)  # fmt: skip
_DEVICE = ObjectDefinition(
    DEVICE, "Device",
    _resources(
        (0, "Manufacturer", _S, R), (1, "Model Number", _S, R), (2, "Serial Number", _S, R), (3, "Firmware Version", _S, R),
        (4, "Reboot", None, E), (5, "Factory Reset", None, E), (6, "Available Power Sources", _I, R, _MULTIPLE),
        (7, "Power Source Voltage", _I, R, _MULTIPLE), (8, "Power Source Current", _I, R, _MULTIPLE),
        (9, "Battery Level", _I, R), (10, "Memory Free", _I, R), (11, "Error Code", _I, R, _MULTIPLE),
        (12, "Reset Error Code", None, E), (13, "Current Time", _T, RW), (14, "UTC Offset", _S, RW), (15, "Timezone", _S, RW),
        (16, "Supported Binding and Modes", _S, R), (17, "Device Type", _S, R), (18, "Hardware Version", _S, R),
        (19, "Software Version", _S, R), (20, "Battery Status", _I, R), (21, "Memory Total", _I, R),
        (22, "ExtDevInfo", _L, R, _MULTIPLE),
        mandatory=(4, 11, 16), units={7: "mV", 8: "mA", 9: "%", 10: "kB", 21: "kB"},
    ),
    is_mandatory=True, version="1.1",
)  # fmt: skip
_MONITORING = ObjectDefinition(
    MONITORING, "Connectivity Monitoring",
    _resources(
        (0, "Network Bearer", _I, R), (1, "Available Network Bearer", _I, R, _MULTIPLE), (2, "Radio Signal Strength", _I, R),
        (3, "Link Quality", _I, R), (4, "IP Addresses", _S, R, _MULTIPLE), (5, "Router IP Addresses", _S, R, _MULTIPLE),
        (6, "Link Utilization", _I, R), (7, "APN", _S, R, _MULTIPLE), (8, "Cell ID", _I, R), (9, "SMNC", _I, R),
        (10, "SMCC", _I, R),
        mandatory=(0, 1, 2, 4), units={2: "dBm", 6: "%"},
    ),
    version="1.1",
)  # fmt: skip
_FIRMWARE = ObjectDefinition(
    FIRMWARE, "Firmware Update",
    _resources(
        (0, "Package", _O, W), (1, "Package URI", _S, RW), (2, "Update", None, E), (3, "State", _I, R),
        (5, "Update Result", _I, R), (6, "PkgName", _S, R), (7, "PkgVersion", _S, R),
        (8, "Firmware Update Protocol Support", _I, R, _MULTIPLE), (9, "Firmware Update Delivery Method", _I, R),
        mandatory=(0, 1, 2, 3, 5, 9),
    ),
)  # fmt: skip
_SOFTWARE = ObjectDefinition(
    SOFTWARE, "LwM2M Software Management",
    _resources(
        (0, "PkgName", _S, R), (1, "PkgVersion", _S, R), (2, "Package", _O, W), (3, "Package URI", _S, W),
        (4, "Install", None, E), (5, "Checkpoint", _L, R), (6, "Uninstall", None, E), (7, "Update State", _I, R),
        (8, "Update Supported Objects", _B, RW), (9, "Update Result", _I, R), (10, "Activate", None, E),
        (11, "Deactivate", None, E), (12, "Activation State", _B, R), (13, "Package Settings", _L, RW), (14, "User Name", _S, W),
        (15, "Password", _S, W), (16, "Status Reason", _S, R), (19, "Start", None, E), (20, "Stop", None, E),
        (21, "Operational State", Type.UNSIGNED, R), (22, "Purge", None, E),
        mandatory=(0, 1, 4, 6, 7, 9, 10, 11, 12),
    ),
    is_multiple=True, version="1.1",
)  # fmt: skip
_RUNTIME = ObjectDefinition(
    RUNTIME, "ML Runtime",
    _resources(
        (0, "Board", _S, R), (1, "CPU", _S, R), (2, "Clock", _I, R), (3, "RAM", _I, R), (4, "Flash", _I, R),
        (5, "Runtime", _S, R), (6, "Runtime Version", _S, R), (7, "Runtime ABI", _I, R), (8, "Arena Size", _I, R),
        (9, "Slot Size", _I, R), (10, "Chunk Size", _I, R), (11, "Operators", _S, R, _MULTIPLE), (12, "Accelerator", _S, R),
        (13, "Sensor Name", _S, R, _MULTIPLE), (14, "Sensor Spec", _O, R, _MULTIPLE), (15, "Energy Source", _I, R),
        (16, "Deflate Window", _I, R), (17, "Sensor Sample", _O, R, _MULTIPLE), (18, "Sample Sequence", _I, R),
        (19, "Sample Energy", _F, R), (20, "Read Sensor", None, E), (21, "Drops Models", _B, R),
        (22, "Flash Page", _I, R),
        mandatory=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15),
        units={2: "MHz", 3: "B", 4: "B", 8: "B", 9: "B", 10: "B", 19: "uJ", 22: "B"},
    ),
)  # fmt: skip
_MODEL = ObjectDefinition(
    MODEL, "ML Model",
    _resources(
        (0, "Slot State", _I, R), (1, "Model", _S, R), (2, "Version", _I, R), (3, "Digest", _O, R), (4, "Input", _O, W),
        (5, "Run", None, E), (6, "Output", _O, R), (7, "Inference Time", _I, R), (8, "Energy", _F, R), (9, "Run Result", _I, R),
        (10, "Reason", _S, R), (11, "Run Sequence", _I, R), (12, "Sample Sequence", _I, R), (13, "Push", _I, RW),
        (14, "Push Phase", _I, R), (15, "Push Offset", _I, R), (16, "Accept", None, E), (17, "Cancel", None, E),
        (18, "Manifest", _O, W), (19, "Run Tag", _I, R), (20, "Run Sensor", _I, R), (21, "Drop", None, E),
        mandatory=(0, 1, 2, 3, 13, 14, 15, 16, 17, 18), units={7: "us", 8: "uJ", 15: "B"},
    ),
    is_multiple=True,
)  # fmt: skip

_SENSED = _resources(
    (5518, "Timestamp", _T, R), (5601, "Min Measured Value", _F, R), (5602, "Max Measured Value", _F, R),
    (5603, "Min Range Value", _F, R), (5604, "Max Range Value", _F, R), (5605, "Reset Min and Max Measured Values", None, E),
    (5700, "Sensor Value", _F, R), (5701, "Sensor Units", _S, R), (5750, "Application Type", _S, RW),
    mandatory=(5700,),
)  # fmt: skip
_SENSORS = {
    3300: "Generic Sensor", 3301: "Illuminance", 3303: "Temperature", 3304: "Humidity", 3315: "Barometer",
    3316: "Voltage", 3317: "Current", 3322: "Load", 3323: "Pressure", 3324: "Loudness", 3325: "Concentration",
}  # fmt: skip

STANDARD = Definitions(
    (
        _SECURITY, _SERVER, _DEVICE, _MONITORING, _FIRMWARE, _SOFTWARE, _RUNTIME, _MODEL,
        *(ObjectDefinition(id_, name, _SENSED, is_multiple=True) for id_, name in _SENSORS.items()),
    )
)  # fmt: skip
"""What gatewayd knows without being told."""
