"""CoRE link format: what devices register and what Discover answers. Bounded, lenient in spaces, strict in structure.

Source: RFC 6690, section 2.
"""

import re
from collections.abc import Sequence

from gatewayd.core.errors import BadRequest, TooLarge
from gatewayd.core.record import record

MAX_BYTES = 16_384
"""Protects the event loop; a client with 64 objects of several instances registers some 1,500 bytes."""
MAX_LINKS = 512
"""Protects memory from lists of empty links."""
MAX_ATTRIBUTES = 16
MAX_TARGET_CHARS = 128

_TARGET = re.compile(r"\s*<([^<>\s]*)>\s*")
_ATTRIBUTE = re.compile(
    r";\s*([!#$&+\-.^_`|~0-9A-Za-z]{1,32}\*?)\s*(?:=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;<>]*)))?\s*"
)
_ESCAPED = re.compile(r"\\(.)")
_BARE = re.compile(r"[!#$%&'()*+\-./:=?@\[\]^_`{|}~0-9A-Za-z]+")


@record
class Link:
    """One link: where it points, and its attributes in order; a value of None is an attribute without `=`."""

    target: str
    attributes: tuple[tuple[str, str | None], ...] = ()

    def attribute(self, name: str) -> str | None:
        """Return the value of an attribute, "" for one without a value, None when it is not there."""
        return next((value or "" for key, value in self.attributes if key == name), None)


def parse_links(payload: bytes) -> tuple[Link, ...]:
    """Read a list of links; nothing at all is an empty list.

    Raises: TooLarge over the limits on bytes and links; BadRequest for anything that is no list of links.
    """
    if len(payload) > MAX_BYTES:
        raise TooLarge(f"links: {len(payload)} bytes, at most {MAX_BYTES} are read")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise BadRequest("links: not UTF-8") from None
    text = text.strip().removesuffix("\0")  # some count the end of their string
    return _links(text) if text else ()


def write_links(links: Sequence[Link]) -> bytes:
    """Write a list of links; a value is quoted where it must be."""
    return ",".join(_written(each) for each in links).encode()


def _links(text: str) -> tuple[Link, ...]:
    links: list[Link] = []
    at = 0
    while True:
        link, at = _link(text, at)
        links.append(link)
        if at == len(text):
            return tuple(links)
        if text[at] != ",":
            raise BadRequest(f"links: {text[at : at + 20]!r} stands where a comma belongs (character {at})")
        if len(links) == MAX_LINKS:
            raise TooLarge(f"links: more than {MAX_LINKS}")
        at += 1
        if not text[at:].strip():
            return tuple(links)  # a comma at the end is a slip that changes nothing


def _link(text: str, at: int) -> tuple[Link, int]:
    target = _TARGET.match(text, at)
    if target is None:
        raise BadRequest(f"links: {text[at : at + 20]!r} is no <target> (character {at})")
    if len(target[1]) > MAX_TARGET_CHARS:
        raise TooLarge(f"links: a target of {len(target[1])} characters, at most {MAX_TARGET_CHARS} are read")
    at, attributes = target.end(), list[tuple[str, str | None]]()
    while found := _ATTRIBUTE.match(text, at):
        if len(attributes) == MAX_ATTRIBUTES:
            raise TooLarge(f"links: <{target[1]}> has more than {MAX_ATTRIBUTES} attributes")
        value = found[3] if found[2] is None else _ESCAPED.sub(r"\1", found[2])
        attributes.append((found[1], value))
        at = found.end()
    return Link(target[1], tuple(attributes)), at


def _written(link: Link) -> str:
    return f"<{link.target}>" + "".join(_attribute(key, value) for key, value in link.attributes)


def _attribute(key: str, value: str | None) -> str:
    if value is None:
        return f";{key}"
    if _BARE.fullmatch(value):
        return f";{key}={value}"
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f';{key}="{quoted}"'
