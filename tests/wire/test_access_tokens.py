import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest
from gatewayd.wire.access_tokens import MAX_TOKENS, matching_token, parse_tokens, token_of

ANN, ANN_KEPT = token_of("ann", "admin", bytes(32))
BOB, BOB_KEPT = token_of("bob@plant", "viewer", bytes([1]) * 32)
FILE = f"# people\n\n{ANN_KEPT.line()}   # until May\n{BOB_KEPT.line()}\n"


def test_a_token_is_found_by_its_digest_only() -> None:
    tokens = parse_tokens(FILE)
    assert tokens == (ANN_KEPT, BOB_KEPT)
    assert ANN.startswith("gwd_")
    assert ANN not in FILE
    assert matching_token(tokens, ANN) == ANN_KEPT
    assert matching_token(tokens, BOB) == BOB_KEPT
    assert matching_token(tokens, ANN_KEPT.digest.hex()) is None
    assert matching_token((), ANN) is None


@pytest.mark.parametrize(
    "line", ["ann admin", "ann root " + "0" * 64, "a b c d", "ann admin " + "0" * 63, "ann admin " + "G" * 64]
)
def test_a_line_that_is_wrong_is_named(line: str) -> None:
    with pytest.raises(BadRequest, match="line 2: must be NAME ROLE SHA256, the role one of viewer, operator, admin"):
        parse_tokens(f"# first\n{line}\n")


def test_too_many_tokens_are_refused() -> None:
    with pytest.raises(BadRequest, match="tokens"):
        parse_tokens((ANN_KEPT.line() + "\n") * (MAX_TOKENS + 1))


@given(st.text(max_size=200))
def test_any_text_is_tokens_or_the_one_error(text: str) -> None:
    try:
        tokens = parse_tokens(text)
    except BadRequest:
        return
    assert parse_tokens("\n".join(token.line() for token in tokens)) == tokens


@given(st.text(max_size=100))
def test_no_text_is_a_token_by_chance(presented: str) -> None:
    assert matching_token((ANN_KEPT, BOB_KEPT), presented) is None
