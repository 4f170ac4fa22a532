"""Simulated boards that attach over LwM2M, as processes of their own."""

import socket
from pathlib import Path

from tests.gateway import SPEAKER, Process


def free_udp_port() -> int:
    """Return a UDP port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_lwm2m_board(folder: Path, device: str, *more: str, port: int) -> Process:
    """Start a board beside the gateway in `folder`; again with the same folder and id: the same board after a power cut."""
    arguments = ["sim-device", "--protocol", "lwm2m", "--id", device, "--board", "nucleo-l4r5zi", "--seed", "5"]
    arguments += ["--gateway", f"127.0.0.1:{port}", "--state", str(folder / device)]
    arguments += ["--trust", str(folder / "data" / "keys" / "trusted.txt")]
    return Process([*arguments, "--samples", str(SPEAKER), "--sensor", "mic", *more])
