"""Until when a certificate is valid: the one thing that the running daemon reads of one, so it does without a library of 9 MB.

Nothing is verified here; TLS does that. Source: RFC 7468 §5 (PEM), ITU-T X.690 §8.1 (DER), RFC 5280 §4.1 (the fields).
"""

import binascii
import re
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_VERSION, _UTC_TIME = 0xA0, 0x17
_LONG = 0x80
_CENTURY_TURNS = "50"  # two digits from here on are of 19xx. Source: RFC 5280 §4.1.2.5.1


def valid_until(pem: bytes) -> datetime:
    """Return when the first certificate of a PEM file ends. Raises: ValueError when there is none that can be read."""
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("no certificate in PEM")
    try:
        tag, text = _not_after(binascii.a2b_base64(found[1]))
    except IndexError:
        raise ValueError("certificate: cut off") from None
    if tag == _UTC_TIME:
        text = ("19" if text >= _CENTURY_TURNS else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _not_after(der: bytes) -> tuple[int, str]:
    """Return the time's tag and text."""
    _, certificate, _ = _element(der, 0)
    _, at, _ = _element(der, certificate)
    has_version = der[at] == _VERSION
    for _ in range(4 if has_version else 3):  # version, serial number, signature algorithm, issuer
        *_, at = _element(der, at)
    _, not_before, _ = _element(der, at)
    *_, at = _element(der, not_before)
    tag, begin, end = _element(der, at)
    return tag, der[begin:end].decode("ascii")


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, begin and end of the content of the element at `at`. Raises: IndexError when it is cut off."""
    tag, length, begin = der[at], der[at + 1], at + 2
    if length >= _LONG:
        size = length - _LONG
        length, begin = int.from_bytes(der[begin : begin + size], "big"), begin + size
    if begin + length > len(der):
        raise IndexError
    return tag, begin, begin + length
