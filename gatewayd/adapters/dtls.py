"""DTLS 1.2 with pre-shared keys, the server's end, without a socket: datagrams in, datagrams and plain text out.

The work is mbed TLS's (python-mbedtls over its in-memory buffers), an optional package. What it does not bound is bounded here:
sessions, handshakes under way, and what an address that did not prove itself may make the gateway remember.
Sources: RFC 6347 (DTLS 1.2; 4.2.1 cookies, 4.2.8 a client that starts anew), RFC 4279 (PSK), RFC 7925 (which suites).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

CIPHERS = (
    "TLS-PSK-WITH-AES-128-CCM-8",  # what RFC 7925 has every constrained device speak
    "TLS-PSK-WITH-AES-128-CCM",
    "TLS-PSK-WITH-AES-128-GCM-SHA256",
)
MAX_HANDSHAKES = 256
"""Protects memory (some 40 KB each in mbed TLS); the one that waited longest is dropped, and its client begins again."""
HANDSHAKE_S = 60.0
_HANDSHAKE_RECORD, _HEAD_BYTES = 22, 13
_KINDS, _VERSIONS, _MOST_RECORDS = (20, 21, 22, 23), (b"\xfe\xff", b"\xfe\xfd"), 16
_SESSION_RECORDS = (21, 23)  # alerts and data; under an association both are encrypted
_MOST_BYTES = 16_384
_MTU = 1280  # of a handshake's flight; IPv6 carries that everywhere

Address = tuple[Any, ...]


class Keys(Mapping[str, bytes]):
    """The keys by identity; `asked` is the identity that was looked up last, which is how a session learns its own.

    `found` is the key that was there for it (b"": none).
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys  # looked up at each handshake: a key that was revoked opens nothing any more
        self.asked, self.found = "", b""

    def __getitem__(self, identity: str) -> bytes:
        self.asked, self.found = identity, b""
        self.found = self._keys[identity]
        return self.found

    def is_valid(self, identity: str, key: bytes) -> bool:
        """Return whether that is the identity's key still; asks for nobody."""
        return self._keys.get(identity) == key

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(slots=True)
class _Session:
    """One association. `identity` "" until the handshake is over; `key` is what proved it."""

    buffer: Any
    began_s: float
    identity: str = ""
    key: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class Heard:
    """What a datagram led to: what goes back as it is, and what was said in it by whom.

    `farewells` go to those whose associations ended for it.
    """

    replies: list[bytes] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    identity: str = ""
    has_ended: bool = False
    farewells: list[tuple[Address, bytes]] = field(default_factory=list)


def whole_records(datagram: bytes) -> list[bytes]:
    """Return the records of a datagram, up to the first that is none: mbed TLS gives an association up over leftovers.

    Source: RFC 6347, sections 4.1 and 4.1.2.7 (what is invalid is dropped in silence).
    """
    found: list[bytes] = []
    at = 0
    while len(datagram) - at > _HEAD_BYTES and len(found) < _MOST_RECORDS:
        end = at + _HEAD_BYTES + int.from_bytes(datagram[at + 11 : at + 13], "big")
        if datagram[at] not in _KINDS or datagram[at + 1 : at + 3] not in _VERSIONS or end > len(datagram):
            break
        found.append(datagram[at:end])
        at = end
    return found


class DtlsSessions:
    """The associations of one socket. `most` of them; the one that was quiet longest is dropped for a new one.

    One whose key was revoked, or replaced, carries nothing any more, and ends with its next message: else whoever holds the old
    key would go on in the name of the device that was given a new one.
    """

    def __init__(self, keys: Mapping[str, bytes], *, most: int, clock: Callable[[], float]) -> None:
        """Raises: ImportError when python-mbedtls is not installed."""
        from mbedtls import exceptions, tls  # noqa: PLC0415 - optional: only who configures DTLS needs it

        self._tls: Any = tls
        self._error: type[Exception] = exceptions.TLSError
        self._keys = Keys(keys)
        configuration = tls.DTLSConfiguration(
            ciphers=CIPHERS, pre_shared_key_store=self._keys, validate_certificates=False
        )
        self._context = tls.ServerContext(configuration)
        self._most = most
        self._clock = clock
        self._established: OrderedDict[Address, _Session] = OrderedDict()
        self._beginning: OrderedDict[Address, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._established)

    @property
    def beginning(self) -> int:
        """How many handshakes are under way."""
        return len(self._beginning)

    def identity(self, address: Address) -> str | None:
        """Return who is at an address, None when nobody has an association there."""
        session = self._valid(address)
        return None if session is None else session.identity

    def receive(self, datagram: bytes, address: Address) -> Heard:
        """Take a datagram. What makes no sense is dropped in silence, as the RFC wants."""
        session = self._established.get(address)
        records = whole_records(datagram)
        if not records:
            return Heard()
        datagram = records[0]
        is_hello = datagram[0] == _HANDSHAKE_RECORD and datagram[3:5] == b"\0\0"
        is_of_a_session = session is not None and datagram[0] in _SESSION_RECORDS and datagram[3:5] != b"\0\0"
        if is_hello or (address in self._beginning and not is_of_a_session):
            # A client that starts anew keeps its old association until the new one has proved itself; whoever forges a
            # beginning in its name takes nothing from it.
            return self._shake(b"".join(records), address)
        if session is None:
            return Heard()
        if self._valid(address) is None:
            del self._established[address]
            replies = list(filter(None, [self._farewell(session)]))
            return Heard(replies, identity=session.identity, has_ended=True)
        self._established.move_to_end(address)
        return self._read(session, records, address)

    def seal(self, message: bytes, address: Address) -> bytes | None:
        """Return the datagram that carries a message; None when there is no association with that address."""
        session = self._valid(address)
        if session is None:
            return None
        try:
            session.buffer.write(message)
            return self._outgoing(session)
        except self._error:
            del self._established[address]
            return None

    def _valid(self, address: Address) -> _Session | None:
        """Return the association with an address; None: there is none, or its key holds no longer."""
        session = self._established.get(address)
        return session if session is not None and self._keys.is_valid(session.identity, session.key) else None

    def _shake(self, datagram: bytes, address: Address) -> Heard:
        session = self._beginning.get(address) or self._fresh(address)
        heard = Heard()
        session.buffer.receive_from_network(datagram)
        self._keys.asked, self._keys.found = session.identity, session.key
        try:
            self._step(session, heard)
        except self._tls.HelloVerifyRequest:
            # The cookie goes out, and nothing is remembered of the address, which proves itself by sending it back: a flood
            # of first messages costs nobody's handshake.
            heard.replies += filter(None, [self._outgoing(session)])
            self._beginning.pop(address, None)
            return heard
        except self._error:
            heard.replies += filter(None, [self._outgoing(session)])  # the alert
            self._beginning.pop(address, None)
            return heard
        session.identity, session.key = self._keys.asked or session.identity, self._keys.found
        if self._is_over(session):
            heard.farewells += self._establish(session, address)
            heard.identity = session.identity
        elif address not in self._beginning and heard.replies:
            self._begin(session, address)  # its cookie was right: only then is there an answer
        return heard

    def _fresh(self, address: Address) -> _Session:
        buffer = self._context.wrap_buffers()
        buffer.setcookieparam(repr(address).encode())
        buffer.setmtu(_MTU)
        return _Session(buffer, self._clock())

    def _begin(self, session: _Session, address: Address) -> None:
        while self._beginning:
            oldest = next(iter(self._beginning.values()))
            if len(self._beginning) < MAX_HANDSHAKES and session.began_s - oldest.began_s < HANDSHAKE_S:
                break
            self._beginning.popitem(last=False)
        self._beginning[address] = session

    def _step(self, session: _Session, heard: Heard) -> None:
        while not self._is_over(session):
            try:
                session.buffer.do_handshake()
            except self._tls.WantReadError:
                break
            except self._tls.WantWriteError:
                heard.replies += filter(None, [self._outgoing(session)])
        heard.replies += filter(None, [self._outgoing(session)])

    def farewells(self) -> list[tuple[Address, bytes]]:
        """End every association; return what tells its peer (close_notify), so that it begins anew instead of waiting for us."""
        ended, self._established = self._established, OrderedDict()
        return [(address, told) for address, session in ended.items() if (told := self._farewell(session))]

    def _farewell(self, session: _Session) -> bytes | None:
        try:
            session.buffer.shutdown()
        except (self._tls.WantReadError, self._tls.WantWriteError):
            pass
        except self._error:
            return None
        return self._outgoing(session)

    def _establish(self, session: _Session, address: Address) -> list[tuple[Address, bytes]]:
        self._beginning.pop(address, None)
        self._established.pop(address, None)
        told = []
        while len(self._established) >= self._most:
            other, oldest = self._established.popitem(last=False)
            told.append((other, self._farewell(oldest) or b""))
        self._established[address] = session
        return [(other, content) for other, content in told if content]

    def _read(self, session: _Session, records: list[bytes], address: Address) -> Heard:
        heard = Heard(identity=session.identity)
        try:
            for record in records:
                if record[0] in _SESSION_RECORDS and record[3:5] != b"\0\0":
                    heard.messages += self._contents(session, record)
        except self._error:  # it said that it ends the association
            self._established.pop(address, None)
            heard.has_ended = True
        heard.replies += filter(None, [self._outgoing(session)])
        return heard

    def _contents(self, session: _Session, record: bytes) -> list[bytes]:
        """Return what a record says; nothing when it is not of this association, or a repeated one."""
        found = []
        session.buffer.receive_from_network(record)
        try:
            while message := session.buffer.read(_MOST_BYTES):
                found.append(bytes(message))
        except (self._tls.WantReadError, self._tls.WantWriteError):
            pass
        return found

    def _outgoing(self, session: _Session) -> bytes | None:
        content = bytes(session.buffer.peek_outgoing(_MOST_BYTES))
        session.buffer.consume_outgoing(len(content))
        return content or None

    def _is_over(self, session: _Session) -> bool:
        return bool(session.buffer._handshake_state is self._tls.HandshakeStep.HANDSHAKE_OVER)  # noqa: SLF001 - it has no public name
