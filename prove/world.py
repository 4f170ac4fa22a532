"""One push with misfortunes: device, gateway and the air between them, in simulated time; and what may never be seen."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import cache

from gatewayd.core.device import PushReport, SlotState
from gatewayd.core.push import PushState
from gatewayd.sim.flash import FlashFault, Power, PowerCut
from gatewayd.wire import agent_terms as terms
from gatewayd.wire import mqttdevice as wire
from prove.bits import Disk
from prove.cuts import Counts, Cut, Kind
from prove.device import Device, Geometry, ModelReset
from prove.gateway import DEVICE, KEYS, Gateway, Killed, shared_journal
from prove.models import MODEL_BYTES, NEW, NEXT, OLD, artifact_of, content_of, in_turn
from prove.outcome import Base, Outcome
from prove.service import ServiceGateway

_BOOT_S = 1.0
_RESTART_S = 2.0
_HOP_S = 0.01
_NEVER_S = 1e9
_PATIENCE_S = 1800.0
"""Past this something waits for ever: every state's deadline together is under 200 s, and each cut may begin it anew."""
_MAX_STEPS = 20_000
_UP, _DOWN = "up", "down"


@cache
def base_of(geometry: Geometry, model_bytes: int = MODEL_BYTES) -> Base:
    """Make the versions, and install the old one by a push without a cut."""
    bits = geometry.deflate_bits
    contents = {version: content_of(version, model_bytes, is_dense=bits is None) for version in (OLD, NEW, NEXT)}
    artifacts = {version: artifact_of(version, content, deflate_bits=bits) for version, content in contents.items()}
    if geometry.drops:
        artifacts |= in_turn(contents, bits)
    empty = Device(geometry, KEYS, lambda _: None)
    world = World(Base(geometry, artifacts, bytes(empty.cells.content)), ())
    outcome = world.run(OLD)
    if outcome.version != OLD or outcome.faults:
        raise AssertionError(f"a push without a cut: {outcome}")
    return Base(geometry, artifacts, bytes(world.device.cells.content))


def run(base: Base, cuts: Sequence[Cut], *, then_next: bool = False, service: bool = False) -> Outcome:
    """Push the new version with these cuts, one after the other; `then_next`: a push after it has to succeed."""
    world = World(base, cuts, service=service)
    outcome = world.run(NEW)
    if then_next and not outcome.faults:
        world.run_next(outcome)
    world.close()
    return outcome


class World:
    """Everything there is, and the clock."""

    def __init__(self, base: Base, cuts: Sequence[Cut] = (), *, service: bool = False) -> None:
        """`service`: the gateway is the real service, not only its table and its rows."""
        self._base, self._service, self._disk = base, service, Disk()
        self._cuts = deque(cuts)
        self._air: deque[tuple[str, str, bytes]] = deque()
        self._journal = shared_journal()
        self._messages, self._commits, self._asked = 0, 0, 0
        self._retained = b""
        self._device_back_s: float | None = None
        self._gateway_back_s: float | None = None
        self._has_power = False
        self._sent: dict[int, int] = {}
        self.now_s = 0.0
        self.faults: list[str] = []
        self.fired = 0
        self.struck: set[Kind] = set()
        self.restarts = 0
        self.is_gateway_mortal = False
        """Once killed it never comes back."""
        self.phases: list[str] = []
        self.device = Device(base.geometry, KEYS, self._publish)
        self.device.cells.content[:] = base.image
        self.gateway = self._new_gateway()

    def run(self, version: int) -> Outcome:
        """Boot, push, let everything happen, look."""
        self.start()
        self._arm()
        self._ask(version)
        self._play()
        outcome = Outcome(self._counts(), self.fired, elapsed_s=self.now_s, faults=self.faults)
        outcome.resent_chunks = sum(self._sent.values()) - len(self._sent)
        # Bytes that flipped on the way have to come again, all of them: only the whole has a digest.
        if Kind.CORRUPT in self.struck:
            outcome.resent_chunks = 0
        if outcome.resent_chunks > self.fired * self._chunks_per_page:
            self.faults.append(f"{outcome.resent_chunks} chunks sent again after {self.fired} cuts")
        outcome.version = self._final_version(version)
        outcome.is_corrected = any(push.reason.startswith(_CORRECTED) for push in self.gateway.ended())
        return outcome

    def close(self) -> None:
        """End what is running."""
        if isinstance(self.gateway, ServiceGateway):
            self.gateway.close()

    def start(self) -> None:
        """Boot and connect the device."""
        if isinstance(self.gateway, ServiceGateway):
            self.gateway.begin(self.now_s)
        self._on_device(terms.Booted(self.device.flash.journals()))
        self._settle()

    def run_next(self, outcome: Outcome) -> None:
        """Whatever happened, the next push gets through."""
        self._cuts.clear()
        self._ask(NEXT)
        self._play()
        if self._final_version(NEXT) != NEXT:
            outcome.faults.append("the push after it did not get through")

    # the order of things

    def _play(self) -> None:
        end_s = self.now_s + _PATIENCE_S
        for _ in range(_MAX_STEPS):
            if self.now_s >= end_s or self.faults:
                break
            if self._air:
                self._deliver()
            elif not self._wait():
                return
        if not self.faults:
            self.faults.append(f"not over after {_PATIENCE_S:g} s")

    def _settle(self) -> None:
        """Deliver what the start led to; nothing is cut yet."""
        self._has_power = True
        self._on_device(terms.Connected())
        while self._air:
            self._deliver()
        self._messages, self._commits = 0, 0

    def _deliver(self) -> None:
        self.now_s += _HOP_S
        self._messages += 1
        direction, kind, payload = self._air.popleft()
        cut = self._due(self._messages - 1)
        if cut is not None and not self._strike(cut, (direction, kind, payload)):
            return
        self._arrive(direction, kind, payload)

    def _arrive(self, direction: str, kind: str, payload: bytes) -> None:
        if direction == _UP:
            if kind == "status":
                self._retained = payload
            if self._gateway_back_s is None:
                self._guarded(lambda: self._hear(kind, payload))
        elif self._has_power and self._device_back_s is None:
            self._on_device(terms.MessageReceived(kind, payload))

    def _hear(self, kind: str, payload: bytes) -> None:
        self.gateway.now_s = self.now_s
        self.gateway.hear(kind, payload)
        if self._asked:
            self._ask_for(self._asked)

    def _ask(self, version: int) -> None:
        """An operator asks for a push, and again when the device was not there."""
        self._guarded(lambda: self._ask_for(version))

    def _ask_for(self, version: int) -> None:
        self._asked = 0
        self.gateway.now_s = self.now_s
        self._asked = 0 if self.gateway.push(version) else version

    def _wait(self) -> bool:
        """Go on to what happens next by time alone; False: nothing will."""
        gateway_s = self.gateway.due_s() if self._gateway_back_s is None else self._gateway_back_s
        due_ms = self.device.agent.due_ms() if self._has_power and self._device_back_s is None else None
        device_s = self._device_back_s if due_ms is None else due_ms / 1000
        times = [each for each in (gateway_s, device_s) if each is not None]
        if not times:
            return False
        if min(times) >= _NEVER_S:
            return False
        self.now_s = max(self.now_s, min(times))
        self._wake()
        return True

    def _wake(self) -> None:
        if self._gateway_back_s is not None and self.now_s >= self._gateway_back_s:
            self._gateway_back_s = None
            self.gateway = self._new_gateway()
            self.gateway.now_s = self.now_s
            self._guarded(self.gateway.restart)
            self._guarded(lambda: self._hear("status", self._retained))
        elif self._gateway_back_s is None:
            self.gateway.now_s = self.now_s
            self._guarded(self.gateway.tick)
        if self._device_back_s is not None and self.now_s >= self._device_back_s:
            self._device_returns()
        elif self._has_power and self._device_back_s is None:
            self._on_device(terms.Ticked())

    def _device_returns(self) -> None:
        self._device_back_s = None
        if not self._has_power:
            self._has_power = True
            self.restarts += 1
            self._restart_device()
            if not self._has_power:
                return
            self._look("after a restart")
        self._on_device(terms.Connected())

    # misfortunes

    def _due(self, message: int) -> Cut | None:
        cut = self._cuts[0] if self._cuts else None
        if cut is None or cut.kind in _COUNTED_ELSEWHERE or message < cut.index:
            return None
        # A copy that rots while the other one is torn and not yet mended is past what two copies can bear.
        is_at_rest = self._has_power and self._device_back_s is None
        return cut if is_at_rest or cut.kind not in {Kind.ROT_0, Kind.ROT_1} else None

    def _strike(self, cut: Cut, message: tuple[str, str, bytes]) -> bool:
        """Let it happen; True: the message arrives all the same."""
        self._next_cut()
        match cut.kind:
            case Kind.POWER | Kind.ROT_0 | Kind.ROT_1:
                self._power_off()
                if cut.kind is not Kind.POWER:
                    self.device.rot_journal(0 if cut.kind is Kind.ROT_0 else 1)
                return message[0] == _UP
            case Kind.LINK:
                self._air = deque(each for each in self._air if each[1] == "status" and each[2] == _OFFLINE)
                self._connection_lost()
                return False
            case Kind.CORRUPT:
                direction, kind, payload = message
                if kind in {"offer", "chunk"}:
                    self._arrive(direction, kind, payload[:-1] + bytes([payload[-1] ^ 1]))
                return kind not in {"offer", "chunk"}
            case Kind.TWICE:
                self._air.appendleft(message)
                return True
            case Kind.GATEWAY:
                self._kill_gateway()
                if message[:2] == (_UP, "status"):
                    self._retained = message[2]  # the broker has it
                return message[0] == _DOWN
            case _:
                return False

    def _power_off(self) -> None:
        self._has_power, self._device_back_s = False, self.now_s + _BOOT_S
        self._air = deque(each for each in self._air if each[0] == _UP)
        self._air.append((_UP, "status", _OFFLINE))

    def _connection_lost(self) -> None:
        if self._has_power and self._device_back_s is None:
            self._on_device(terms.Disconnected())
            self._device_back_s = self.now_s + _BOOT_S
            self._air.append((_UP, "status", _OFFLINE))

    def _kill_gateway(self) -> None:
        if self._journal.in_transaction:
            self._journal.rollback()
        self.close()
        self._gateway_back_s = self.now_s + (_NEVER_S if self.is_gateway_mortal else _RESTART_S)

    def _on_commit(self, is_before: bool) -> None:  # noqa: FBT001 - the two sides of a commit
        kind = Kind.BEFORE_COMMIT if is_before else Kind.AFTER_COMMIT
        number, self._commits = self._commits, self._commits + (not is_before)
        if self._cuts and self._cuts[0].kind is kind and number >= self._cuts[0].index:
            self._next_cut()
            raise Killed

    def _next_cut(self) -> None:
        self.struck.add(self._cuts.popleft().kind)
        self.fired += 1
        self._messages, self._commits = 0, 0
        self._arm()

    def _arm(self) -> None:
        """Count anew, and set up the flash for the next cut if that is the one it takes."""
        self.device.flash.power = Power()
        if self._cuts and self._cuts[0].kind is Kind.FLASH:
            self.device.flash.power = Power(self._cuts[0].index, self._cuts[0].tear)

    # the two sides, and what may go wrong in them

    def _on_device(self, event: terms.Event) -> None:
        self._act(lambda: self.device.hand_in(event, round(self.now_s * 1000)))

    def _restart_device(self) -> None:
        self._act(lambda: self.device.restart(round(self.now_s * 1000)))

    def _act(self, act: Callable[[], None]) -> None:
        try:
            act()
        except PowerCut:
            self._next_cut()
            self._power_off()
        except ModelReset:
            self._power_off()
        except FlashFault as fault:
            self.faults.append(f"flash: {fault}")

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run the gateway; what it says leaves when it goes on living, or up to the moment it was killed."""
        try:
            work()
        except Killed:
            self._kill_gateway()

    def _publish(self, command: terms.Publish) -> None:
        if command.kind == "push":
            self.phases.append(_phase_of(command.payload))
        self._air.append((_UP, command.kind, command.payload))

    def _send(self, kind: str, payload: bytes) -> None:
        if kind == "chunk":
            offset = int.from_bytes(payload[4:8], "little")
            self._sent[offset] = self._sent.get(offset, 0) + 1
        self._air.append((_DOWN, kind, payload))

    def _new_gateway(self) -> Gateway | ServiceGateway:
        artifacts, journal = self._base.artifacts, self._journal
        if self._service:
            return ServiceGateway(
                artifacts, journal=journal, send=self._send, on_commit=self._on_commit, disk=self._disk
            )
        return Gateway(artifacts, journal=journal, send=self._send, on_commit=self._on_commit)

    # what may never be seen

    def _look(self, when: str) -> int:
        """Check what the device could run now; return the version that is active (0: none)."""
        active, models = 0, 0
        for index, (state, version, content) in self.device.models().items():
            artifact = self._base.artifacts.get(version)
            if artifact is None or content != artifact.content:
                self.faults.append(f"{when}: slot {index} holds a mixed image")
            if state is SlotState.ACTIVE:
                active, models = version, models + 1
        if models > max(1, self._base.geometry.slot_count - 1):
            self.faults.append(f"{when}: {models} models, and no slot for staging")
        if active == 0 and self._has_old and self._base.geometry.slot_count > 1:
            self.faults.append(f"{when}: no runnable model")
        return active

    @property
    def _chunks_per_page(self) -> int:
        return max(1, self._base.geometry.page_bytes // self._base.geometry.chunk_bytes)

    @property
    def _has_old(self) -> bool:
        return self._base.image.count(b"\xff") != len(self._base.image)

    def _final_version(self, pushed: int) -> int:
        if self.faults:
            return 0
        self._asked = 0
        before = self._look("at the end")
        self.device.power_on(round(self.now_s * 1000))
        after = self._look("at the end, after a restart")
        if self.gateway.live is not None:
            self.faults.append("the gateway's push has not ended")
        if any(state is SlotState.TRIAL for state, _, _ in self.device.models().values()):
            self.faults.append("a trial without end")
        if before != after:
            self.faults.append(f"runs {before}, after a restart {after}")
        self.device.hand_in(terms.Connected(), round(self.now_s * 1000))
        while self._air:
            self._deliver()
        self._agree(pushed, after)
        return after

    def _agree(self, pushed: int, version: int) -> None:
        """Both sides say the same of how it ended."""
        ended = [push for push in self.gateway.ended() if push.version == pushed]
        is_accepted = any(push.state is PushState.ACCEPTED for push in ended)
        if is_accepted != (version == pushed):
            how = ", ".join(f"{push.state.value} ({push.reason})" for push in ended) or "never begun"
            self.faults.append(f"the device runs {version}, the gateway says of {pushed}: {how}")

    def _counts(self) -> Counts:
        return Counts(self.device.flash.power.done, self._messages, self._commits)


_OFFLINE = wire.encode_offline()
_CORRECTED = "the device reports that it kept"
_COUNTED_ELSEWHERE = frozenset({Kind.FLASH, Kind.BEFORE_COMMIT, Kind.AFTER_COMMIT})


def _phase_of(payload: bytes) -> str:
    heard = wire.decode_up("push", payload, DEVICE)
    return heard.phase.value if isinstance(heard, PushReport) else ""
