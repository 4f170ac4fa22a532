"""How a simulated board attaches over LwM2M."""

from dataclasses import dataclass

from gatewayd.sim.registration import Terms
from gatewayd.sim.stock_software import Persona
from gatewayd.wire.lwm2m.formats import Format

FORMATS = {
    "1.0": (Format.TLV, Format.TEXT, Format.OPAQUE),
    "1.1": (Format.SENML_CBOR, Format.TLV, Format.TEXT, Format.OPAQUE, Format.CBOR, Format.SENML_JSON),
    "1.2": (Format.SENML_CBOR, Format.LWM2M_CBOR, Format.TLV, Format.TEXT, Format.OPAQUE, Format.CBOR, Format.SENML_JSON),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lwm2mOptions:
    """How the board attaches. `formats` None: what its version has. `loss` is the share of datagrams lost each way.

    `sleep_after_s`: it hears nothing so long after the last word, until its next update (queue mode); None: it is always
    there. `block_exponent`: blocks of 2**(n + 4) bytes at most. `takes_push`: packages may come by
    Block1, too, not by URI only. `infers_every_s`: it runs its model on its sensor by itself so often; whoever observes is told.
    `observes`: what is observed is told. `persona`: a stock client without our objects.
    """

    host: str
    port: int
    terms: Terms
    link: str
    loss: float = 0.0
    seed: int = 1
    formats: tuple[Format, ...] | None = None
    sleep_after_s: float | None = None
    update_every_s: float | None = None
    block_exponent: int = 6
    takes_push: bool = True
    infers_every_s: float | None = None
    observes: bool = True
    persona: Persona | None = None
