from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.wire.lwm2m.formats import Format
from gatewayd.wire.lwm2m.linkformat import MAX_ATTRIBUTES, MAX_BYTES, MAX_LINKS, Link, parse_links, write_links
from gatewayd.wire.lwm2m.paths import Path
from gatewayd.wire.lwm2m.registration import (
    Binding,
    RegisteredObject,
    Registration,
    Update,
    Version,
    VersionRefused,
    parse_registration,
    parse_update,
)


def registered(query: str, body: str = "</1/0>,</3/0>", content_format: int | None = 40) -> Registration:
    return parse_registration(query.split("&"), body.encode(), content_format)


def test_a_registration_of_1_0() -> None:
    # The example of OMA LwM2M 1.0.2, section 5.3.1.
    found = registered("lwm2m=1.0&ep=node1&lt=600&b=U", "</1/0>,</1/1>,</2/0>,</2/1>,</2/2>,</3/0>,</4/0>,</5>")
    assert (found.endpoint, found.lifetime_s, found.version, found.binding) == (
        "node1",
        600,
        Version.V1_0,
        Binding("U"),
    )
    assert found.objects == (
        RegisteredObject(1, None, (0, 1)), RegisteredObject(2, None, (0, 1, 2)), RegisteredObject(3, None, (0,)),
        RegisteredObject(4, None, (0,)), RegisteredObject(5),
    )  # fmt: skip
    assert found.formats == ()


@pytest.mark.parametrize(
    ("query", "binding"),
    [
        ("", Binding("U", is_queued=False)),
        ("&b=U", Binding("U", is_queued=False)),
        ("&b=UQ", Binding("U", is_queued=True)),
        ("&b=UQS", Binding("US", is_queued=True)),
        ("&b=U&Q", Binding("U", is_queued=True)),
        ("&Q", Binding("U", is_queued=True)),
        ("&b=Q", Binding("U", is_queued=True)),
        ("&b=uq", Binding("U", is_queued=True)),
        ("&b=", Binding("U", is_queued=False)),
        ("&b=UT", Binding("UT", is_queued=False)),
    ],
)
def test_queue_mode_is_written_in_the_binding_or_beside_it(query: str, binding: Binding) -> None:
    assert registered(f"ep=a&lwm2m=1.0{query}").binding == binding


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.0", "1.0"), ("1.1", "1.1"), ("1.2", "1.2"), ("1.0.2", "1.0"), ("1.1.1", "1.1"), ("", "1.0")],
)
def test_versions(text: str, version: str) -> None:
    assert registered(f"ep=a&lwm2m={text}").version.value == version


def test_a_client_that_names_no_version_is_old() -> None:
    assert registered("ep=a").version is Version.V1_0


@pytest.mark.parametrize("text", ["0.9", "1.3", "2.0", "1", "one", "1.1" * 20])
def test_another_version_is_refused_as_such(text: str) -> None:
    with pytest.raises(VersionRefused, match=r"1\.0, 1\.1, 1\.2"):
        registered(f"ep=a&lwm2m={text}")


@pytest.mark.parametrize("content_format", [None, 40, 0])
def test_the_content_format_may_be_missing(content_format: int | None) -> None:
    assert registered("ep=a&lwm2m=1.1", content_format=content_format).has(Path(3, 0))


@pytest.mark.parametrize("content_format", [50, 11542, 60])
def test_another_content_format_is_refused(content_format: int) -> None:
    with pytest.raises(BadRequest, match="links"):
        registered("ep=a&lwm2m=1.1", content_format=content_format)


@pytest.mark.parametrize(
    ("body", "root", "formats"),
    [
        ('</>;rt="oma.lwm2m";ct=110,</3/0>', "", [Format.SENML_JSON]),
        ('</>;rt="oma.lwm2m";ct="60 110 112 11542 11543",</3/0>', "", [60, 110, 112, 11542, 11543]),
        ("</>;ct=11543,</3/0>", "", [Format.JSON]),
        ("</>;rt=oma.lwm2m,</3/0>", "", []),
        ('</>;rt="oma.lwm2m";ct="9999 110 x 110",</3/0>', "", [Format.SENML_JSON]),
        ('</lwm2m>;rt="oma.lwm2m";ct=112,</lwm2m/3/0>,</lwm2m/9>', "/lwm2m", [Format.SENML_CBOR]),
        ('</lwm2m/>;rt="oma.lwm2m",</lwm2m/3/0>', "/lwm2m", []),
        ('</3/0>,</>;rt="core.rd oma.lwm2m";ct=1542', "", [Format.TLV]),
        ("</3/0>", "", []),
    ],
)
def test_the_root_link(body: str, root: str, formats: list[int]) -> None:
    found = registered("ep=a&lwm2m=1.1", body)
    assert (found.root, list(found.formats)) == (root, formats)
    assert found.instances(3) == (0,)


def test_objects_with_versions_and_without_instances() -> None:
    body = '</>;rt="oma.lwm2m";ct=110,</1>;ver=1.1,</1/0>,</3/0>;ver="1.2",</9>,</26241/0>,</.well-known/core>,</rd>'
    found = registered("ep=a&lwm2m=1.1", body)
    assert found.objects == (
        RegisteredObject(1, "1.1", (0,)), RegisteredObject(3, "1.2", (0,)), RegisteredObject(9),
        RegisteredObject(26241, None, (0,)),
    )  # fmt: skip
    assert found.has(Path(9))
    assert not found.has(Path(9, 0))
    assert not found.has(Path(5))


@pytest.mark.parametrize(
    "query",
    [
        "lwm2m=1.1", "ep=&lwm2m=1.1", f"ep={'x' * 129}", "ep=a\x07b", "ep=a&ep=b", "ep=a&lt=-1", "ep=a&lt=x", "ep=a&lt=",
        "ep=a&lt=99999999999", "ep=a&lt=4294967296", "ep=a&lt=0&lwm2m=1.0", "ep=a&b=UZ",
        f"ep=a&sms={'1' * 33}", f"ep=a&x={'y' * 300}",
        "&".join(f"ep{i}=a" for i in range(17)),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        registered(query)


def test_lifetimes() -> None:
    assert registered("ep=a").lifetime_s == 86_400
    assert registered("ep=a&lt=0&lwm2m=1.1").lifetime_s is None


def test_an_update_changes_what_it_names() -> None:
    before = registered("ep=a&lwm2m=1.1&lt=60&b=U&sms=1234", "</>;ct=110,</3/0>")
    assert parse_update([], b"").applied(before) == before
    longer = parse_update(["lt=120"], b"").applied(before)
    assert (longer.lifetime_s, longer.sms, longer.objects) == (120, "1234", before.objects)
    sleepy = parse_update(["b=UQ"], b"").applied(before)
    assert (sleepy.binding, sleepy.lifetime_s) == (Binding("U", is_queued=True), 60)
    grown = parse_update([], b"</3/0>,</9/0>,</9/1>").applied(before)
    assert grown.instances(9) == (0, 1)
    assert grown.formats == before.formats
    assert parse_update(["lt=0"], b"").applied(before).lifetime_s is None
    assert parse_update([], b"</3/0>").changes_objects
    assert not parse_update(["lt=9"], b"").changes_objects
    assert parse_update([], b"") == Update()


def test_an_update_that_makes_no_sense_is_refused() -> None:
    for query, body in ((["lt=x"], b""), (["b=Y"], b""), ([], b"<"), (["lt=1", "lt=2"], b"")):
        with pytest.raises(BadRequest):
            parse_update(query, body)
    with pytest.raises(BadRequest, match=r"1\.1"):
        parse_update(["lt=0"], b"", version=Version.V1_0)


def test_discover_has_attributes() -> None:
    # The example of OMA LwM2M Core 1.1.1, section 6.3.2, and a client's way of writing lists.
    found = parse_links(
        b'</3/0>;pmin=10;pmax=60,</3/0/6>;dim=8,</3/0/7>;dim=8;gt=50;lt=42.2,</3/0/8>;dim=8, </4>;ver="1.1" '
    )
    assert found[0] == Link("/3/0", (("pmin", "10"), ("pmax", "60")))
    assert found[2].attribute("lt") == "42.2"
    assert found[4].attribute("ver") == "1.1"
    assert found[1].attribute("pmin") is None


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("", ()),
        ("  ", ()),
        ("</>", (Link("/"),)),
        ("<>", (Link(""),)),
        ('</a>;x="a,b;<c>\\"d\\\\"', (Link("/a", (("x", 'a,b;<c>"d\\'),)),)),
        ("</a>;obs;ct=40", (Link("/a", (("obs", None), ("ct", "40"))),)),
        ("</a>;ct=", (Link("/a", (("ct", ""),)),)),
        ("</a> ; rt = x , </b>,", (Link("/a", (("rt", "x"),)), Link("/b"))),
        ("</3/0>\0", (Link("/3/0"),)),
    ],
)
def test_links(text: str, links: tuple[Link, ...]) -> None:
    assert parse_links(text.encode()) == links


@pytest.mark.parametrize(
    "text", ["</a", "a", "</a>;", "</a></b>", "</a>,,</b>", '</a>;x="y', "</a>;=3", "</a b>", "</a>;x=a b", ",</a>"]
)
def test_what_is_no_list_of_links_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_links(text.encode())


def test_bombs_of_links_are_refused() -> None:
    for text in (
        ",".join(["</1>"] * (MAX_LINKS + 1)),
        "</1>" + ";a=1" * (MAX_ATTRIBUTES + 1),
        "<" + "a" * 200 + ">",
        "<" * (MAX_BYTES + 1),
    ):
        with pytest.raises(TooLarge):
            parse_links(text.encode())


names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
values = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
targets = st.from_regex(r"/[a-z0-9/.]{0,20}", fullmatch=True)
link_lists = st.lists(st.builds(Link, targets, st.lists(st.tuples(names, values), max_size=4).map(tuple)), max_size=6)


@settings(deadline=None)
@given(link_lists)
def test_links_are_written_and_read(links: list[Link]) -> None:
    assert parse_links(write_links(links)) == tuple(links)


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=30) | st.sampled_from(["ep=a", "lt=60", "lwm2m=1.1", "b=U"]), max_size=8),
    st.binary(max_size=100),
)
def test_any_registration_is_one_or_the_one_error(query: list[str], body: bytes) -> None:
    with suppress(BadRequest, TooLarge):
        assert parse_registration(query, body).endpoint
    with suppress(BadRequest, TooLarge):
        assert isinstance(parse_update(query, body), Update)


pieces = st.sampled_from(
    ["</3/0>", "</9>", ",", ";", "ct=", '"', "110 ", "</", ">", "rt=oma.lwm2m", "\\", " ", "ver=1.1"]
)


@settings(deadline=None)
@given(st.lists(pieces, max_size=30).map("".join))
def test_any_links_are_links_or_the_one_error(text: str) -> None:
    with suppress(BadRequest, TooLarge):
        assert parse_links(write_links(parse_links(text.encode()))) == parse_links(text.encode())
