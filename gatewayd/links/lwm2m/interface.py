"""What devices ask of the server: register, update, deregister (`/rd`), send (`/dp`). Decides and answers; tells `Listener`.

Sources: OMA LwM2M Core 1.1.1, sections 6.2 and 6.4.6; Transport 1.1.1, section 6.4.2 (which response codes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gatewayd.core.errors import BadRequest, CallerError, Forbidden, NotFound, Overloaded, TooLarge
from gatewayd.core.names import DeviceId, parse_device_id
from gatewayd.links.lwm2m.blocks import Part, Uploads
from gatewayd.links.lwm2m.coap import Block, Code, Incoming, Method, Peer, Reply
from gatewayd.links.lwm2m.registrations import Came, Registered, Registrations
from gatewayd.wire.lwm2m.definitions import Definitions
from gatewayd.wire.lwm2m.formats import decode, format_of
from gatewayd.wire.lwm2m.paths import ROOT
from gatewayd.wire.lwm2m.registration import VersionRefused, parse_registration, parse_update
from gatewayd.wire.lwm2m.values import Record

_MAX_UPLOAD_BYTES = 16_384  # of one registration or Send; protects memory
_COME_LATER_S = 30
_REGISTER, _NAMED = ("rd",), 2


class Listener(Protocol):
    """Who is told. All of it returns at once."""

    def admit(self, device: DeviceId) -> None:
        """Raises: Overloaded while a device is to stay out."""

    def registered(self, device: Registered, came: Came) -> None:
        """A device registered."""

    def updated(self, device: Registered, *, changed: bool, objects: bool) -> None:
        """A device refreshed its registration; `changed`: not only its lifetime, `objects`: it listed what it has."""

    def deregistered(self, device: Registered) -> None:
        """A device said that it leaves."""

    def sent(self, device: Registered, records: tuple[Record, ...]) -> None:
        """A device sent values on its own."""

    def heard(self, device: Registered, peer: Peer) -> None:
        """A device spoke."""

    def silent(self) -> Registered | None:
        """Return a registered device that never answered a question, the oldest first: nobody may be there."""


@dataclass(slots=True)
class Bucket:
    """A limit on how often something happens: `per_s` on average, `burst` at once."""

    per_s: float
    burst: float
    clock: Callable[[], float]
    _left: float = -1.0
    _at_s: float = 0.0

    def take(self) -> bool:
        """Return whether one more may happen now."""
        now_s = self.clock()
        left = self.burst if self._left < 0 else min(self.burst, self._left + (now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        self._left = left - 1 if left >= 1 else left
        return left >= 1


class Interface:
    """Serves `/rd` and `/dp`. `on_refused(where, code, message)` counts what is refused."""

    def __init__(
        self,
        registrations: Registrations,
        listener: Listener,
        *,
        definitions: Definitions,
        newcomers: Bucket,
        on_refused: Callable[[str, str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._registrations = registrations
        self._listener = listener
        self._definitions = definitions
        self._newcomers = newcomers
        self._on_refused = on_refused
        self._clock = clock
        self._uploads = Uploads(most_bytes=_MAX_UPLOAD_BYTES)

    async def serve_rd(self, request: Incoming) -> Reply:
        """Answer a request below `/rd`."""
        return self._guarded(request, self._rd)

    async def serve_dp(self, request: Incoming) -> Reply:
        """Answer a Send."""
        return self._guarded(request, self._dp)

    def _guarded(self, request: Incoming, serve: Callable[[Incoming], Reply]) -> Reply:
        """Put blocks together, and turn what is wrong with a request into its answer."""
        taken = self._uploads.feed(request)
        if isinstance(taken, Part):
            if taken.code != Code.CONTINUE:
                self._refuse(request, "blocks", f"{request.path} in blocks: answered {taken.code:#x}")
            return Reply(taken.code, block1=taken.block)
        try:
            reply = serve(taken.request)
        except VersionRefused as error:
            reply = self._refused(request, Code.PRECONDITION_FAILED, error)
        except NotFound:
            reply = Reply(Code.NOT_FOUND)  # how a device learns that it has to register again: nothing is wrong with it
        except Forbidden as error:
            reply = self._refused(request, Code.FORBIDDEN, error)
        except TooLarge as error:
            reply = self._refused(request, Code.TOO_LARGE, error)
        except CallerError as error:
            reply = self._refused(request, Code.BAD_REQUEST, error)
        except Overloaded as error:
            self._refuse(request, error.code, str(error))
            reply = Reply(Code.UNAVAILABLE, max_age_s=_COME_LATER_S)
        last = request.block1
        return reply if last is None else _closing(reply, last)

    def _rd(self, request: Incoming) -> Reply:
        match request.method, len(request.path):
            case Method.POST, 1:
                return self._register(request)
            case ((Method.POST | Method.PUT), 2):
                return self._update(request)
            case Method.DELETE, 2:
                return self._deregister(request)
            case _, (1 | 2):
                return Reply(Code.METHOD_NOT_ALLOWED)
            case _:
                return Reply(Code.NOT_FOUND)

    def _register(self, request: Incoming) -> Reply:
        parsed = parse_registration(request.query, request.payload, request.content_format)
        device = parse_device_id(parsed.endpoint)
        self._listener.admit(device)
        if self._registrations.of(device) is None and not self._newcomers.take():
            self._refuse(request, "too_many", f"{device}: too many new registrations at once")
            return Reply(Code.TOO_MANY, max_age_s=_COME_LATER_S)
        if self._registrations.of(device) is None and self._registrations.is_full:
            self._make_room()
        registered, came = self._registrations.register(
            device,
            parsed,
            peer=request.peer,
            query="&".join(request.query),
            links=request.payload.decode(errors="replace"),
            now_s=self._clock(),
        )
        self._listener.registered(registered, came)
        return Reply(Code.CREATED, location=("rd", registered.location))

    def _make_room(self) -> None:
        """Let go a registration that nobody stands behind: names made up by somebody must not keep devices out."""
        silent = self._listener.silent()
        if silent is not None:
            self._registrations.remove(silent)
            self._listener.deregistered(silent)

    def _update(self, request: Incoming) -> Reply:
        before = self._registrations.named(request.path[1], request.peer)
        update = parse_update(
            request.query, request.payload, request.content_format, version=before.registration.version
        )
        links = request.payload.decode(errors="replace") if update.changes_objects else None
        found, changed = self._registrations.update(
            request.path[1], update, peer=request.peer, links=links, now_s=self._clock()
        )
        self._listener.updated(found, changed=changed, objects=changed and update.changes_objects)
        return Reply(Code.CHANGED)

    def _deregister(self, request: Incoming) -> Reply:
        found = self._registrations.named(request.path[1], request.peer)
        self._registrations.remove(found)
        self._listener.deregistered(found)
        return Reply(Code.DELETED)

    def _dp(self, request: Incoming) -> Reply:
        if request.method != Method.POST or len(request.path) != 1:
            return Reply(Code.METHOD_NOT_ALLOWED)
        registered = self._registrations.at(request.peer)
        if registered is None:
            raise NotFound("not registered")
        kind = format_of(request.content_format)
        if kind is None:
            raise BadRequest("a Send names its Content-Format")
        records = decode(kind, ROOT, request.payload, self._definitions)
        self._listener.heard(registered, request.peer)
        self._listener.sent(registered, records)
        return Reply(Code.CHANGED)

    def _refused(self, request: Incoming, code: Code, error: CallerError) -> Reply:
        self._refuse(request, error.code, str(error))
        return Reply(code, str(error)[:120].encode())

    def _refuse(self, request: Incoming, code: str, message: str) -> None:
        self._on_refused("lwm2m", code, f"{request.peer.address}: {message}")


def _closing(reply: Reply, last: Block) -> Reply:
    """Name the last block of an upload in its answer."""
    return Reply(reply.code, reply.payload, block1=last, location=reply.location, max_age_s=reply.max_age_s)
