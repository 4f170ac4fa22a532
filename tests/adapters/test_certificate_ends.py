from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gatewayd.adapters.certificate_ends import days_left
from gatewayd.adapters.certificates import AUTHORITY_DAYS, SERVER_DAYS, new_authority, new_server

NOW = datetime.now(UTC)


def test_the_days_left_are_told(tmp_path: Path) -> None:
    authority = new_authority("gatewayd gw", now=NOW)
    (tmp_path / "ca.pem").write_bytes(authority[0])
    (tmp_path / "server.pem").write_bytes(new_server(["x"], authority, now=NOW)[0])
    later = NOW + timedelta(days=10)
    assert days_left(tmp_path / "ca.pem", now=later) == pytest.approx(AUTHORITY_DAYS - 10, abs=0.1)
    assert days_left(tmp_path / "server.pem", now=later) == pytest.approx(SERVER_DAYS - 10, abs=0.1)
    assert days_left(tmp_path / "missing.pem", now=later) is None


def test_what_is_no_certificate_has_no_end(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(new_authority("gatewayd gw", now=NOW)[1])
    assert days_left(tmp_path / "key.pem", now=NOW) is None
