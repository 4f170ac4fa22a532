"""CoAP over DTLS as one more transport of an aiocoap context: requests go both ways over the association a device began.

aiocoap's own DTLS server does not recognise its sessions when it is to send a request over one, and stops at 64 of them.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiocoap import Context, Message, interfaces  # type: ignore[import-untyped]  # aiocoap ships no types
from aiocoap.message import Direction  # type: ignore[import-untyped]  # as above

from gatewayd.adapters.coap_context import BoundedMessages, RandomTokens, Refused, decoded
from gatewayd.adapters.dtls import Address, DtlsSessions
from gatewayd.core.record import record


@record
class DtlsOptions:
    """Where to listen, the keys by identity, and how many associations to hold."""

    host: str
    port: int
    keys: Mapping[str, bytes]
    most: int


class DtlsAddress(interfaces.EndpointAddress):  # type: ignore[misc]  # aiocoap ships no types
    """Who is at the other end: an address and the identity that was proved there."""

    scheme = "coaps"
    maximum_block_size_exp = 6
    maximum_payload_size = 1024
    is_multicast = False
    is_multicast_locally = False

    def __init__(self, sockaddr: Address, identity: str, interface: "DtlsInterface") -> None:
        self.sockaddr = sockaddr
        self.identity = identity
        self.interface = interface

    def __hash__(self) -> int:
        return hash((self.sockaddr, self.identity))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DtlsAddress) and (self.sockaddr, self.identity) == (other.sockaddr, other.identity)

    @property
    def hostinfo(self) -> str:
        """Host and port of the peer."""
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def hostinfo_local(self) -> str:
        """Host and port under which the peer reaches us."""
        host, port = self.interface.local
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def uri_base(self) -> str:
        """The peer's base URI."""
        return f"coaps://{self.hostinfo}"

    @property
    def uri_base_local(self) -> str:
        """Our base URI."""
        return f"coaps://{self.hostinfo_local}"

    @property
    def authenticated_claims(self) -> list[str]:
        """Who it is, in aiocoap's words."""
        return [f"psk:{self.identity}"]

    @property
    def blockwise_key(self) -> tuple[Address, str]:
        """What blocks of one transfer have in common."""
        return self.sockaddr, self.identity

    def as_response_address(self) -> "DtlsAddress":
        """Answers go where the question came from."""
        return self


class DtlsInterface(asyncio.DatagramProtocol, interfaces.MessageInterface):  # type: ignore[misc]  # aiocoap ships no types
    """aiocoap's message interface over a UDP socket with associations on it."""

    def __init__(self, messages: BoundedMessages, sessions: DtlsSessions, on_refused: Refused) -> None:
        self._messages = messages
        self.sessions = sessions
        self._on_refused = on_refused
        self._transport: Any = None
        self.local: tuple[str, int] = ("", 0)

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's shape
        """See asyncio.DatagramProtocol."""
        self._transport = transport
        self.local = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """See asyncio.DatagramProtocol."""
        heard = self.sessions.receive(data, addr)
        for reply in heard.replies:
            self._transport.sendto(reply, addr)
        for other, farewell in heard.farewells:
            self._transport.sendto(farewell, other)
        for content in heard.messages:
            remote = DtlsAddress(addr, heard.identity, self)
            message = decoded(content, remote)
            if message is None:
                self._on_refused("coap", "malformed", f"{len(content)} bytes of {heard.identity[:60]!r} are no CoAP")
                continue
            message.direction = Direction.INCOMING
            self._messages.dispatch_message(message)
        if heard.has_ended:
            self._messages.dispatch_error(
                ConnectionResetError("its DTLS session ended"), DtlsAddress(addr, heard.identity, self)
            )

    def say_farewell(self) -> None:
        """End every association, and tell the peers: a device that hears it makes a new handshake with its next message."""
        for address, farewell in self.sessions.farewells():
            self._transport.sendto(farewell, address)

    def error_received(self, exc: Exception) -> None:
        """See asyncio.DatagramProtocol. Whom it was about is not told here; retransmissions find out."""

    def send(self, message: Message) -> None:
        """See aiocoap's MessageInterface."""
        remote = message.remote
        if self.sessions.identity(remote.sockaddr) == remote.identity:
            datagram = self.sessions.seal(message.encode(), remote.sockaddr)
            if datagram is not None:
                self._transport.sendto(datagram, remote.sockaddr)
                return
        asyncio.get_running_loop().call_soon(
            self._messages.dispatch_error, ConnectionResetError("it has no DTLS session"), remote
        )

    async def recognize_remote(self, remote: object) -> bool:
        """See aiocoap's MessageInterface."""
        return isinstance(remote, DtlsAddress) and remote.interface is self

    async def determine_remote(self, message: Message) -> None:  # noqa: ARG002 - aiocoap's shape
        """See aiocoap's MessageInterface: nobody is called from here."""
        return

    async def shutdown(self) -> None:
        """See aiocoap's MessageInterface."""
        self._transport.close()


@asynccontextmanager
async def dtls_on(context: Context, options: DtlsOptions, *, on_refused: Refused) -> AsyncIterator[int]:
    """Add DTLS to a context for as long as that lasts; gives the port. At its end every peer is told.

    Raises: OSError when the address cannot be bound; ImportError when python-mbedtls is not installed.
    """
    sessions = DtlsSessions(options.keys, most=options.most, clock=time.monotonic)
    loop = asyncio.get_running_loop()
    tokens = RandomTokens(context)
    messages = BoundedMessages(tokens)
    _, interface = await loop.create_datagram_endpoint(
        lambda: DtlsInterface(messages, sessions, on_refused),
        local_addr=(options.host, options.port),
        family=socket.AF_UNSPEC,
    )
    messages.message_interface, tokens.token_interface = interface, messages
    context.request_interfaces.append(tokens)
    try:
        yield int(interface.local[1])
    finally:
        interface.say_farewell()
