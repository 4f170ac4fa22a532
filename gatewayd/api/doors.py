"""Whether devices can use over CoAP what they were given to prove themselves with."""

from dataclasses import dataclass


@dataclass(slots=True)
class Doors:
    """Why a key for DTLS, and a context of OSCORE, are of no use now, and what helps ("": they are).

    The daemon changes it when it listens.
    """

    psk: str = ""
    oscore: str = ""
