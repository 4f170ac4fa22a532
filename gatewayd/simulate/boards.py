"""What is true of boards, models and links in a simulation: measured figures, and where they come from.

The policies do not see these: they start from a profile (speed and energy of one model on the board) and MACs, as the
daemon does. Source: MLPerf Tiny, closed division, rounds v1.0 to v1.3 (MLCommons); model sizes and MACs of its reference
models. Energy that no submission measured is the power of a related board, scaled by the clock, as in config/profiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gatewayd.core.device import Profile

# The model that profiles are calibrated with.
_CALIBRATED = "kws"


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its file, its input as a sensor sends it, its answer, its MACs, and seconds on the node (LiteRT, x86-64).

    `stream_bytes`: what of it travels to a device that unpacks (None: all of it).
    """

    name: str
    size_bytes: int
    input_bytes: int
    output_bytes: int
    macs: int
    node_s: float
    stream_bytes: int | None = None

    @property
    def travels_bytes(self) -> int:
        """What a push carries."""
        return self.size_bytes if self.stream_bytes is None else self.stream_bytes


@dataclass(frozen=True, slots=True)
class Board:
    """A board with its runtime: seconds and µJ per inference by model. A model that is missing does not run there.

    `believed` is what policies are told beforehand; None: the true speed and energy of KWS.
    """

    name: str
    clock_mhz: int
    flash_bytes: int
    seconds: Mapping[str, float]
    energy_uj: Mapping[str, float]
    believed: Profile | None = None

    @property
    def profile(self) -> Profile:
        """What a policy is told beforehand: unless told otherwise, speed and energy of one model (KWS), nothing of others."""
        if self.believed is not None:
            return self.believed
        macs = MODELS[_CALIBRATED].macs
        return Profile(
            board=self.name,
            cpu="",
            clock_mhz=self.clock_mhz,
            ram_bytes=0,
            flash_bytes=self.flash_bytes,
            runtime="",
            macs_per_s=macs / self.seconds[_CALIBRATED],
            energy_nj_per_mac=1000.0 * self.energy_uj[_CALIBRATED] / macs,
            invoke_s=0.0,
            source="MLPerf Tiny, KWS",
        )


@dataclass(frozen=True, slots=True)
class Link:
    """A way to a device: seconds for a small message and its answer, bytes per second, share lost, bytes per chunk of a push.

    `bearer` is what a device over LwM2M says that carries it ("": nothing): the gateway's first guess of the link.
    """

    name: str
    rtt_s: float
    bytes_per_s: float
    loss: float
    chunk_bytes: int
    bearer: str = ""


# Sizes and MACs: MLPerf Tiny's reference models (Banbury et al. 2021), and the project's own `speaker` (models/speaker/card.md).
MODELS: Mapping[str, Model] = {
    each.name: each
    for each in (
        Model("kws", 53_936, 490, 12, 2_660_000, 44e-6),
        Model("vww", 333_288, 27_648, 2, 7_490_000, 170e-6),
        Model("ic", 98_496, 3_072, 10, 12_500_000, 79e-6),
        Model("ad", 276_976, 640, 640, 264_000, 3e-6),
        Model("speaker", 16_320, 696, 9, 338_152, 10e-6),
    )
}


def _board(
    name: str,
    clock_mhz: int,
    flash_kb: int,
    *,
    ms: tuple[float, float, float, float | None],
    uj: tuple[float, ...] | float,
) -> Board:
    """Make a board from ms of KWS, VWW, IC and AD, and µJ of each, or mW where the power is assumed.

    `speaker` was measured nowhere: it takes what its MACs take at the speed of KWS.
    """
    seconds = {name: value / 1000 for name, value in zip(("kws", "vww", "ic", "ad"), ms, strict=True) if value}
    seconds["speaker"] = seconds["kws"] * MODELS["speaker"].macs / MODELS["kws"].macs
    if isinstance(uj, tuple):
        energy = dict(zip(("kws", "vww", "ic", "ad"), uj, strict=False))
        energy["speaker"] = energy["kws"] * MODELS["speaker"].macs / MODELS["kws"].macs
    else:
        energy = {model: 1000 * uj * value for model, value in seconds.items()}
    return Board(name, clock_mhz, flash_kb * 1024, seconds, energy)


BOARDS: Mapping[str, Board] = {
    each.name: each
    for each in (
        _board("nucleo-g0b1re", 64, 512, ms=(474.6, 1414, 1522, 40.9), uj=17.6),
        _board("nrf5340-dk", 128, 1024, ms=(76.1, 232, 316, 6.27), uj=18.3),
        _board("nucleo-l4r5zi", 120, 2048, ms=(43.4, 89.4, 165.7, 4.79), uj=(1431, 3030, 5496, 160)),
        _board("nucleo-l4r5zi-microtvm", 120, 2048, ms=(144.0, 336.6, 389, 11.7), uj=(7951, 17132, 21342, 634)),
        _board("nucleo-u575zi-q", 160, 2048, ms=(29.0, 59.3, 109.5, 3.21), uj=(664, 1372, 2565, 77)),
        _board("nucleo-u385rg-q", 96, 1024, ms=(48.3, 98.7, 182.5, 5.41), uj=(245, 519, 966, 32)),
        _board("nucleo-h7a3zi-q", 280, 2048, ms=(11.3, 23.8, 40.8, 1.23), uj=(1376, 2965, 5090, 166)),
        _board("cy8cproto-062-4343w", 150, 2048, ms=(54.1, 108, 189, 4.46), uj=41.2),
        _board("ek-ra8d1", 480, 2048, ms=(3.46, 13.4, 8.48, 0.53), uj=208.4),
        _board("syntiant-ndp9120", 30, 1024, ms=(4.37, 12.7, 16.0, None), uj=(32, 72, 102)),
        _board("b-u585i-iot02a", 160, 2048, ms=(35.4, 107.0, 107.1, 4.85), uj=22.9),
        _board("disco-f746ng", 216, 1024, ms=(17.7, 34.1, 62.9, 1.71), uj=93.7),
    )
}

# Nominal usable rates: BLE 100-700 kb/s, 802.15.4 20-60, LTE-M 100-300, NB-IoT 20-60 with 1-4 s round trip, LoRa SF7 5.5: the
# middles. The other round trips, losses and chunks are assumed.
LINKS: Mapping[str, Link] = {
    each.name: each
    for each in (
        Link("ble", 0.030, 50_000, 0.01, 1024),
        Link("802.15.4", 0.060, 5_000, 0.03, 256),
        Link("lte-m", 0.120, 25_000, 0.01, 1024),
        Link("nb-iot", 1.600, 5_000, 0.02, 1024),
        Link("lora", 0.900, 690, 0.05, 222),
    )
}
