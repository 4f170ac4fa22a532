import base64
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from gatewayd.wire.certificate import valid_until

ENDS = [
    datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC),
    datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2050, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
]
KEYS: list[CertificateIssuerPrivateKeyTypes] = [
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
    rsa.generate_private_key(65537, 2048),
]


def certificate(end: datetime, key: CertificateIssuerPrivateKeyTypes, *, name: str = "gw") -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, each) for each in (name, "x" * 60)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(1999, 1, 1, tzinfo=UTC))
        .not_valid_after(end)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_every_kind_of_certificate(end: datetime) -> None:
    for key in KEYS:
        assert valid_until(certificate(end, key, name="n" * 60)) == end


def test_the_first_of_several_counts_and_words_around_it_do_not() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    first, second = (certificate(end, key).replace(b"\n", b"\r\n") for end in ENDS[:2])
    assert valid_until(b"subject=CN gw\n" + first + second) == ENDS[0]


def test_what_is_cut_off_or_changed_is_refused_or_read_and_nothing_else_happens() -> None:
    pem = certificate(ENDS[0], ed25519.Ed25519PrivateKey.generate())
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    for at in range(len(der)):
        assert end_of(as_pem(der[:at])) is None
        for value in (0x00, 0x80, 0x84, 0xFF):
            end_of(as_pem(der[:at] + bytes([value]) + der[at + 1 :]))
    for content in (b"", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", pem[:-30]):
        assert end_of(content) is None


def end_of(pem: bytes) -> datetime | None:
    try:
        return valid_until(pem)
    except ValueError:
        return None


def as_pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
