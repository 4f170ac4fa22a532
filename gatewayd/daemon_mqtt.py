"""The composition root's part for MQTT: the two connections to the broker, and the edges of clients on them."""

import time
from collections.abc import Callable, Coroutine

from gatewayd.adapters.mqtt_connection import MqttConnection
from gatewayd.adapters.store import Store
from gatewayd.api.table import Api
from gatewayd.api.verb import Caller, Role
from gatewayd.config import Config
from gatewayd.core.record import record
from gatewayd.edges import mqtt as mqtt_edge
from gatewayd.edges.mqtt import MqttEdge
from gatewayd.edges.mqtt_answers import Answers
from gatewayd.edges.mqtt_commands import CommandLimits, MqttCommands
from gatewayd.edges.rates import Rates
from gatewayd.parts import command_options, mqtt_options, mqtt_timing
from gatewayd.services.once import Once
from gatewayd.wire.topics import Topics

OnRefused = Callable[[str, str, str], None]
Loops = dict[str, Coroutine[object, object, None]]


@record
class Wires:
    """The connections: `plain` for what is heard at once, `late` for commands, which are acknowledged once they are obeyed."""

    topics: Topics
    plain: MqttConnection
    late: MqttConnection

    def are_up(self) -> bool:
        """Whether the broker is there, and hears and tells everything."""
        return self.plain.connected and self.late.connected

    def loops(self) -> Loops:
        """Return what keeps them, by name."""
        return {"mqtt connection": self.plain.run(), "mqtt command connection": self.late.run()}


@record
class MqttEdges:
    """Where clients come in over MQTT."""

    plain: MqttEdge
    commands: MqttCommands

    def loops(self) -> Loops:
        """Return what serves them, by name; these end last."""
        return {"mqtt edge": self.plain.run(), "mqtt commands": self.commands.run()}

    async def drain(self) -> None:
        """Take no more, and wait until what was taken is answered."""
        await self.commands.drain()
        await self.plain.drain()


def mqtt_wires(config: Config, *, on_refused: OnRefused) -> Wires:
    """Make the connections; nothing is connected yet. Raises: StartRefused (password file)."""
    topics = Topics(config.mqtt.prefix, config.node.name)
    options, timing = mqtt_options(config, topics), mqtt_timing(config)
    late = MqttConnection(command_options(config, options), on_refused=on_refused, timing=timing)
    # Who reads that the node is online may send a command at once: it must be heard.
    plain = MqttConnection(options, on_refused=on_refused, timing=timing, is_whole=lambda: late.connected)
    late.on_connected(plain.say_online)
    return Wires(topics, plain, late)


def mqtt_edges(
    config: Config,
    api: Api,
    store: Store,
    wires: Wires,
    *,
    on_refused: OnRefused,
    on_answered: Callable[[str, str], None],
    rouse: Callable[[], object],
) -> MqttEdges:
    """Make the edges. `on_answered(verb, outcome)` counts commands."""
    prefixes, most = config.mqtt.reply_prefixes, config.mqtt.max_payload_bytes
    per_s = config.mqtt.max_requests_per_s
    rates = Rates(per_s, time.monotonic) if per_s else None

    def answers(connection: MqttConnection) -> Answers:
        return Answers(connection, wires.topics, reply_prefixes=prefixes, on_refused=on_refused, rates=rates)

    plain = MqttEdge(
        api,
        wires.plain,
        wires.topics,
        answers=answers(wires.plain),
        limits=mqtt_edge.Limits(max_payload_bytes=most),
        rouse=rouse,
    )
    commands = MqttCommands(
        api,
        Once(store, wall_clock=time.time),
        wires.late,
        wires.topics,
        # Who may publish which command is the broker's business (its ACL): it does not tell who did.
        caller=Caller("mqtt", Role[config.mqtt.commands.role.upper()], limited_by="mqtt.commands.role"),
        answers=answers(wires.late),
        on_answered=on_answered,
        limits=CommandLimits(max_payload_bytes=most),
    )
    return MqttEdges(plain, commands)
