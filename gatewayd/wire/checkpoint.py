"""What was learned, as bytes: compressed JSON, versioned, bounded before anything is allocated.

Numbers keep six digits, as they are estimates; artifacts are named once and then by their number. Reading never trusts: any
bytes are either what was learned or one error.
"""

import json
import zlib
from collections.abc import Mapping
from math import isfinite

from gatewayd.core.errors import BadRequest
from gatewayd.core.estimate import Estimate, LinkEstimate
from gatewayd.core.learned import Learned
from gatewayd.core.names import DeviceId, Digest, parse_device_id, parse_digest
from gatewayd.wire.checkpoint_rent import read_rent, rent_members

VERSION = 1
MAX_BYTES = 2**23
"""Of the compressed checkpoint; 20,000 pairs take about 1 MB."""
MAX_TEXT_BYTES = 2**25
"""Of the text in it: protects from a file that says little and means much."""
MAX_ROWS = 50_000
_LAST_YEAR = 1e11  # s: the year 5138; keeps sums of times exact to a millisecond


class BrokenCheckpoint(ValueError):
    """The bytes are no checkpoint; the message says what is wrong."""


def encode_learned(learned: Learned) -> bytes:
    """Return the checkpoint."""
    digests: dict[Digest, int] = {}
    document = {
        "checkpoint": VERSION,
        "pairs": [
            [device, digests.setdefault(digest, len(digests)), _numbers(compute), _numbers(energy)]
            for device, digest, compute, energy in learned.pairs
        ],
        "node": [[digests.setdefault(digest, len(digests)), _numbers(compute)] for digest, compute in learned.node],
        "links": [
            [device, _numbers(link.rtt), _numbers(link.goodput), _numbers(link.failures)]
            for device, link in learned.links
        ],
        "samples": [[device, sensor, _numbers(energy)] for device, sensor, energy in learned.samples],
        "digests": list(digests),
        "at": learned.at,
        **rent_members(learned.kept.moved(-learned.at_s)),
    }
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode())


def decode_learned(content: bytes) -> Learned:
    """Return what a checkpoint says. Raises: BrokenCheckpoint."""
    try:
        return _learned(_document(content))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError, BadRequest) as error:
        raise BrokenCheckpoint(str(error) or type(error).__name__) from None


def _document(content: bytes) -> Mapping[str, object]:
    if len(content) > MAX_BYTES:
        raise BrokenCheckpoint(f"it has more than {MAX_BYTES} bytes")
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(content, MAX_TEXT_BYTES)
    except zlib.error as error:
        raise BrokenCheckpoint(f"it cannot be unpacked: {error}") from None
    if not unpacking.eof:
        raise BrokenCheckpoint("it is cut off, or too large")
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("checkpoint") != VERSION:
        raise BrokenCheckpoint("it is of another version")
    return document


def _learned(document: Mapping[str, object]) -> Learned:
    digests = [parse_digest(_text(each)) for each in _rows(document, "digests")]
    pairs = [_listed(row) for row in _rows(document, "pairs")]
    node = [_listed(row) for row in _rows(document, "node")]
    links = [_listed(row) for row in _rows(document, "links")]
    samples = [_listed(row) for row in _rows(document, "samples")]
    return Learned(
        tuple((_device(row[0]), digests[_whole(row[1])], _estimate(row[2]), _estimate(row[3])) for row in pairs),
        tuple((digests[_whole(row[0])], _estimate(row[1])) for row in node),
        tuple((_device(row[0]), LinkEstimate(*(_estimate(each) for each in row[1:4]))) for row in links),
        tuple((_device(row[0]), _whole(row[1]), _estimate(row[2])) for row in samples),
        read_rent(document),
        at=_wall(document.get("at", 0.0)),
    )


def _wall(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0.0 <= given < _LAST_YEAR:
        raise BrokenCheckpoint("a wall time is due")
    return float(given)


def _numbers(estimate: Estimate) -> list[float]:
    return [float(f"{each:.6g}") for each in (estimate.mean, estimate.variance, estimate.count)]


def _estimate(given: object) -> Estimate:
    values = _listed(given)
    if len(values) != 3 or not all(isinstance(each, int | float) and isfinite(each) and each >= 0 for each in values):  # noqa: PLR2004 - mean, variance, count
        raise BrokenCheckpoint("an estimate is three numbers from 0 up")
    mean, variance, count = (float(each) for each in values if isinstance(each, int | float))
    return Estimate(mean, variance, count)


def _rows(document: Mapping[str, object], name: str) -> list[object]:
    rows = _listed(document[name])
    if len(rows) > MAX_ROWS:
        raise BrokenCheckpoint(f"{name}: more than {MAX_ROWS}")
    return rows


def _listed(given: object) -> list[object]:
    if not isinstance(given, list):
        raise BrokenCheckpoint("a list is due")
    return given


def _device(given: object) -> DeviceId:
    return parse_device_id(_text(given))


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise BrokenCheckpoint("a text is due")
    return given


def _whole(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise BrokenCheckpoint("a whole number is due")
    return given
