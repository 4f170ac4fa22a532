"""What some values of the config file may be: the node's name, topics, ports and weights."""

import re
import socket
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from gatewayd.config.types import matched, one_level, within


def host_name() -> str:
    """Return the machine's host name as a node may be called."""
    return re.sub(r"[^a-z0-9_-]+", "-", socket.gethostname().lower()).strip("-_")[:63] or "gateway"


def topic(text: str) -> str:
    """Check topic levels. Raises: ValueError."""
    return matched(
        text,
        r"[^/+#$\s\0][^+#\s\0]{0,127}(?<!/)",
        "must be topic levels without '+', '#', blanks or a '/' at either end",
    )


def reply_prefix(text: str) -> str:
    """Check the beginning of topics for replies. Raises: ValueError."""
    return matched(
        text, r"[^/+#$\s\0][^+#\s\0]{0,126}/", "must be topic levels that end in '/', without '+', '#' or blanks"
    )


Port = Annotated[int, within(1, 65535)]
Weight = Annotated[float, within(0, 1e9)]
NodeName = Annotated[
    str, BeforeValidator(lambda name: host_name() if name is None else name), AfterValidator(one_level)
]
Version = Annotated[Literal["5", "3.1.1", "auto"], BeforeValidator(lambda version: "5" if version == 5 else version)]  # noqa: PLR2004 - unquoted in YAML it is a number
