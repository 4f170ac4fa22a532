"""A simulated board: the profile is what everybody believes of its kind, the truth what this one is (seeded ±30 %)."""

import hashlib
from dataclasses import dataclass

from gatewayd.core.device import Capabilities, EnergySource, Profile, Sensor
from gatewayd.sim.radio import LinkFigures

SPREAD = 0.3
"""How far the truth may be from the profile, so that predictions have something to learn. Assumed."""
RADIO_NJ_PER_BYTE = 1_000
"""1 µJ per byte sent. Assumed, as in the figures that the profiles come from; a BLE radio in a good mood is below it."""
BATTERY_UJ = 10.8e9
"""A 1,000 mAh cell at 3 V."""
TFLITE_SCHEMA = 3

# What a firmware with a MicroMutableOpResolver would register for small vision, audio and sensor models: a real one names its
# operators one by one, to save flash.
OPERATORS = frozenset({
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "EXPAND_DIMS",
    "FULLY_CONNECTED", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAX_POOL_2D", "MAXIMUM", "MEAN", "MINIMUM", "MUL",
    "PACK", "PAD", "PRELU", "QUANTIZE", "RELU", "RELU6", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SHAPE", "SLICE",
    "SOFTMAX", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "UNPACK",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Truth:
    """What this board and its link really are; nothing but the simulation reads it."""

    macs_per_s: float
    energy_nj_per_mac: float
    invoke_s: float
    link: LinkFigures

    def compute_s(self, macs: int) -> float:
        """Return what one inference takes."""
        return self.invoke_s + macs / self.macs_per_s

    def energy_nj(self, macs: int, *, radio_bytes: int) -> int:
        """Return what one inference and sending its answer take from the battery."""
        return round(macs * self.energy_nj_per_mac) + radio_bytes * RADIO_NJ_PER_BYTE


@dataclass(frozen=True, slots=True)
class Room:
    """What the board's firmware gives to models: bytes of the arena, of each slot, of the receive buffer.

    `deflate_bits`: it decodes DEFLATE within such a window (None: not at all). A flash page is as large as the receive buffer.
    `drops_models`: it lets models go when it is told to. `returns_bytes`: the largest sample it sends with an unsure answer.
    """

    arena_bytes: int
    slot_bytes: int
    chunk_bytes: int
    deflate_bits: int | None = None
    drops_models: bool = True
    returns_bytes: int = 4096


def true_board(profile: Profile, link: LinkFigures, *, seed: int, device: str, spread: float = SPREAD) -> Truth:
    """Return this device's truth, within 1 ± `spread` of what is believed: the same for the same seed and device, everywhere."""
    key = f"{seed}/{device}"
    return Truth(
        macs_per_s=profile.macs_per_s * _factor(key, "speed", spread),
        energy_nj_per_mac=profile.energy_nj_per_mac * _factor(key, "energy", spread),
        invoke_s=profile.invoke_s,
        link=LinkFigures(
            rtt_s=link.rtt_s * _factor(key, "rtt", spread),
            goodput_bytes_per_s=link.goodput_bytes_per_s * _factor(key, "goodput", spread),
        ),
    )


def capabilities_of(
    profile: Profile, room: Room, *, runtime_version: str, energy: EnergySource, sensors: tuple[Sensor, ...]
) -> Capabilities:
    """Return what the board says of itself."""
    return Capabilities(
        board=profile.board,
        cpu=profile.cpu,
        clock_mhz=profile.clock_mhz,
        ram_bytes=profile.ram_bytes,
        flash_bytes=profile.flash_bytes,
        runtime="tflm",
        runtime_version=runtime_version,
        runtime_abi=TFLITE_SCHEMA,
        arena_bytes=room.arena_bytes,
        slot_bytes=room.slot_bytes,
        chunk_bytes=room.chunk_bytes,
        energy_source=energy,
        operators=OPERATORS,
        sensors=sensors,
        deflate_bits=room.deflate_bits,
        page_bytes=None if room.deflate_bits is None else room.chunk_bytes,
        drops_models=room.drops_models,
        returns_bytes=room.returns_bytes,
    )


def _factor(key: str, what: str, spread: float) -> float:
    """A number of 1 ± `spread` from a hash, which unlike a generator's stream no other draw can shift."""
    drawn = int.from_bytes(hashlib.sha256(f"{key}/{what}".encode()).digest()[:8], "big") / 2**64
    return 1.0 - spread + 2 * spread * drawn
