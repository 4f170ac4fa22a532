import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from gatewayd.adapters.certificates import Pair, new_authority, new_server
from gatewayd.core.errors import BadRequest

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority() -> Pair:
    return new_authority("gatewayd gw", now=NOW)


def shaken(folder: Path, server: Pair, authority: Pair, *, name: str) -> str:
    """Shake hands over loopback; return the TLS version."""
    (folder / "cert.pem").write_bytes(server[0])
    (folder / "key.pem").write_bytes(server[1])
    there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    there.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    here = ssl.create_default_context(cadata=authority[0].decode())
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.settimeout(10)
    with ours, theirs:
        answering = threading.Thread(target=_answer, args=(there, theirs))
        answering.start()
        try:
            with here.wrap_socket(ours, server_hostname=name) as secured:
                return secured.version() or ""
        finally:
            answering.join()


def _answer(context: ssl.SSLContext, connection: socket.socket) -> None:
    try:
        context.wrap_socket(connection, server_side=True).close()
    except OSError:
        connection.close()


@pytest.mark.parametrize("name", ["gw.local", "localhost", "127.0.0.1", "::1"])
def test_who_trusts_the_authority_trusts_the_server(tmp_path: Path, authority: Pair, name: str) -> None:
    server = new_server(["gw.local", "localhost", "127.0.0.1", "::1"], authority, now=NOW)
    assert shaken(tmp_path, server, authority, name=name) == "TLSv1.3"


def test_another_name_or_another_authority_is_not_trusted(tmp_path: Path, authority: Pair) -> None:
    server = new_server(["gw.local"], authority, now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shaken(tmp_path, server, authority, name="other.local")
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shaken(tmp_path, server, new_authority("gatewayd gw", now=NOW), name="gw.local")


def test_a_server_cannot_sign_and_the_authority_signs_no_other(authority: Pair) -> None:
    certificate = x509.load_pem_x509_certificate(new_server(["gw.local"], authority, now=NOW)[0])
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    own = x509.load_pem_x509_certificate(authority[0])
    assert own.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_an_authority_in_pieces_signs_nothing(authority: Pair) -> None:
    with pytest.raises(BadRequest, match="does not belong"):
        new_server(["x"], (authority[0], new_authority("y", now=NOW)[1]), now=NOW)
    with pytest.raises(BadRequest, match="cannot be read"):
        new_server(["x"], (authority[0], b"nonsense"), now=NOW)
