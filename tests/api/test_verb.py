import base64

import pytest

from gatewayd.api.table import VERBS
from gatewayd.api.verb import MAX_FILE_BYTES, Caller, Role
from gatewayd.core.errors import BadRequest, Forbidden, TooLarge

ADD, ALIAS, STATUS, PUSH = VERBS["models.add"], VERBS["models.alias"], VERBS["status"], VERBS["push"]
FILE = base64.b64encode(b"TFL3").decode()


def message_of(verb: str, arguments: bytes | dict[str, object]) -> str:
    with pytest.raises(BadRequest) as caught:
        VERBS[verb].parse(arguments)
    return str(caught.value)


def test_files_are_base64() -> None:
    assert ADD.parse({"model": "kws", "files": [FILE]}).files == (b"TFL3",)
    assert ADD.parse(f'{{"model":"kws","files":["{FILE}"]}}'.encode()).files == (b"TFL3",)


def test_no_bytes_mean_no_arguments() -> None:
    assert STATUS.parse(b"") == STATUS.parse({}) == STATUS.parse(b"{}")


def test_a_query_gives_numbers_as_text() -> None:
    assert STATUS.parse({"pushes": "3"}).pushes == 3


def test_every_mistake_is_told_with_its_path() -> None:
    message = message_of("models.add", {"files": [FILE, "%%%", 3], "labels": ["", "ok"], "lables": ["a"]})
    assert message.startswith("models.add: model: Field required; ")
    assert "; files[1]: is no base64: " in message
    assert "files[2]: Input should be a valid bytes" in message
    assert "labels[0]: String should have at least 1 character" in message
    assert "lables: no such argument; known: model, labels, preprocessing, note" in message


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("push", b"[1]", "push: Input should be an object"),
        ("push", b'{"device":', "push: Invalid JSON: EOF while parsing a value at line 1 column 10"),
        ("push", b"[" * 5000, "push: Invalid JSON: recursion limit exceeded"),
        ("push", {"device": "", "model": "m"}, "push: device: String should have at least 1 character"),
        (
            "models.alias",
            {"model": "a", "alias": "b", "version": True},
            "models.alias: version: must be a whole number",
        ),
        ("models.alias", {"model": "a", "alias": "b", "version": 0}, "models.alias: version: Input should be greater"),
        (
            "models.add",
            {"model": "a", "files": ["AAAA"] * 9},
            "models.add: files: Tuple should have at most 8 items",
        ),
        ("models.add", {"model": "a", "files": [""]}, "models.add: files[0]: Data should have at least 1 byte"),
        ("devices.list", {"all": 1}, "devices.list: all: no such argument; known: none"),
        ("infer", b'{"model":"a","deadline_ms":NaN}', "infer: deadline_ms: Input should be a finite number"),
        ("infer", {"model": "a", "request_class": "x"}, "infer: request_class: no such argument; known: model, device"),
    ],
)
def test_mistakes(verb: str, arguments: bytes | dict[str, object], message: str) -> None:
    assert message_of(verb, arguments).startswith(message)


def test_a_thousand_mistakes_are_told_shortly() -> None:
    message = message_of("models.add", {"model": "a", "files": [FILE], "labels": [""] * 1000})
    assert message.endswith("labels[9]: String should have at least 1 character; and 990 more")


def test_limits() -> None:
    with pytest.raises(TooLarge, match=r"push: 262145 bytes of arguments are over the limit of 262144"):
        PUSH.parse(b" " * (2**18 + 1))
    too_large = base64.b64encode(bytes(MAX_FILE_BYTES + 3)).decode()
    assert message_of("models.add", {"model": "a", "files": [too_large]}).endswith(
        "files[0]: is over the limit of 8388608 bytes"
    )


@pytest.mark.parametrize(("role", "is_allowed"), [(Role.VIEWER, False), (Role.OPERATOR, True), (Role.ADMIN, True)])
def test_roles(role: Role, is_allowed: bool) -> None:  # noqa: FBT001 - a parametrised case
    caller = Caller("ann", role)
    if is_allowed:
        ALIAS.check_role(caller)
        return
    with pytest.raises(Forbidden, match=r"models\.alias needs the role operator; 'ann' is viewer"):
        ALIAS.check_role(caller)
