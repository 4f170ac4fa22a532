"""YAML read strictly: what a line means, and what is refused with its place."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.wire.strict_yaml import MAX_DEPTH, MAX_NODES, MAX_YAML_BYTES, YamlRefused, YamlValue, load_yaml

MEANINGS: list[tuple[str, YamlValue]] = [
    ("", None),
    ("a: no", {"a": "no"}),
    ("a: [yes, on, off, y, n]", {"a": ["yes", "on", "off", "y", "n"]}),
    ("a: [true, False, TRUE]", {"a": [True, False, True]}),
    ("a: 1e3", {"a": 1000.0}),
    ("a: 12:30:00", {"a": "12:30:00"}),
    ("a: 017", {"a": 17}),
    ("a: [0o17, 0x1F, -3, +4]", {"a": [15, 31, -3, 4]}),
    ("a: [.5, 1., -.inf]", {"a": [0.5, 1.0, -math.inf]}),
    ("a: 1_000", {"a": "1_000"}),
    ("a: 2024-01-01", {"a": "2024-01-01"}),
    ("a: [~, null, ]", {"a": [None, None]}),
    ("a:", {"a": None}),
    ("a: 'true'", {"a": "true"}),
    ('a: "1"', {"a": "1"}),
    ("<<: {a: 1}", {"<<": {"a": 1}}),
    ("a: |\n  12\n", {"a": "12\n"}),
    ("%YAML 1.1\n---\na: yes", {"a": "yes"}),
]


@pytest.mark.parametrize(("text", "value"), MEANINGS)
def test_meaning(text: str, value: YamlValue) -> None:
    read = load_yaml(text)
    assert read == value
    assert repr(read) == repr(value)  # 1 == True == 1.0 would hide a wrong type


REFUSALS = [
    ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' stands twice, first in line 1: remove one"),
    ("x:\n  a: 1\n  'a': 2", "line 3, column 3: the key 'a' stands twice, first in line 2: remove one"),
    ("a: &x 1\nb: *x", "line 2, column 4: the alias *x is not read here: write the value out"),
    ("a: !!python/object:os.x 1", "line 1, column 4: the tag 'tag:yaml.org,2002:python/object:os.x' is not read"),
    ("a: !!str 1", "line 1, column 4: the tag"),
    ("1: 2", "line 1, column 1: the key 1 is no text: put it in quotes"),
    ("true: 2", "line 1, column 1: the key True is no text"),
    ("? [a]\n: 1", "line 1, column 3: the key ['a'] is no text"),
    ("a: [1, 2", "line 1, column 9: expected ',' or ']'"),
    ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
    ("\ta: 1", "line 1, column 1: found character '\\t' that cannot start any token"),
    ("a: 1\n---\nb: 2", "line 2, column 1: a second document begins here"),
    ("a: \x00", "not YAML: unacceptable character #x0000"),
    ("a: " + "9" * 41, "line 1, column 4: a number of 41 characters"),
    ("[" * (MAX_DEPTH + 1), f"line 1, column {MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"),
    ("[" * 100_000, "nested deeper"),
    ("[" + "1," * MAX_NODES + "]", f"more than {MAX_NODES} values"),
    ("#" * (MAX_YAML_BYTES + 1), f"the text has over {MAX_YAML_BYTES} bytes"),
    ("é" * (MAX_YAML_BYTES // 2 + 1), "the text has over"),
]


@pytest.mark.parametrize(("text", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_refusal_names_the_place(text: str, message: str) -> None:
    with pytest.raises(YamlRefused) as caught:
        load_yaml(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_billion_laughs_ends_at_the_first_alias() -> None:
    bomb = "a: &a [x]\n" + "".join(f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(YamlRefused, match=r"line 2, column 8: the alias \*a"):
        load_yaml(bomb)


@given(st.text(max_size=60) | st.text(alphabet="a:-[]{}#&*!|>'\"%@`, \n0.e", max_size=60))
def test_any_text_is_a_value_or_the_one_error(text: str) -> None:
    with contextlib.suppress(YamlRefused):
        load_yaml(text)
