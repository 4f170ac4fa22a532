from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.wire.lwm2m.composite import FORMATS, MAX_PATHS, decode_paths, encode_paths
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.paths import Path

paths = st.lists(
    st.builds(Path, st.integers(0, 65534), st.integers(0, 65534), st.integers(0, 65534)), max_size=MAX_PATHS
)


@pytest.mark.parametrize("kind", FORMATS)
@given(paths)
def test_what_is_written_is_read(kind: Format, wanted: list[Path]) -> None:
    assert decode_paths(kind, encode_paths(kind, wanted)) == tuple(wanted)


@pytest.mark.parametrize("kind", FORMATS)
@given(st.binary(max_size=60))
def test_any_bytes_are_places_or_the_one_error(kind: Format, payload: bytes) -> None:
    with suppress(BadRequest):
        assert len(decode_paths(kind, payload)) <= MAX_PATHS


@pytest.mark.parametrize("payload", [b"{}", b"[1]", b'[{"v":1}]', b'[{"n":7}]', b'[{"n":"/x"}]'])
def test_what_is_no_list_of_places(payload: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_paths(Format.SENML_JSON, payload)
