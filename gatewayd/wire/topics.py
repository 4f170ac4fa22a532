"""The MQTT topic grammar: which topics gatewayd listens to, publishes on, and lets a reply go to. Pure text.

`BASE` is `<prefix>/<node>`. Clients use `BASE/infer/<model>` and `BASE/cmd/<verb>`, devices `BASE/device/<id>/…`.
"""

from collections.abc import Iterable

from gatewayd.core.errors import BadRequest, Forbidden
from gatewayd.core.names import DeviceId
from gatewayd.core.record import record

# mosquitto disconnects a client whose topic has more than 200 levels; nobody needs more than these.
_MAX_LEVELS = 32
_MAX_TOPIC_BYTES = 1024
_CONTROL = frozenset({"infer", "cmd", "device", "status", "event", "stream"})


@record
class InferTopic:
    """An inference request; `model_ref_text` is what stood in the topic, not checked yet."""

    model_ref_text: str


@record
class CommandTopic:
    """A command; `verb` is what stood in the topic, not checked yet."""

    verb: str


@record
class DeviceUp:
    """Something a device published; `device_text` and `kind` are what stood in the topic, not checked yet."""

    device_text: str
    kind: str


ClientTopic = InferTopic | CommandTopic


@record
class Topics:
    """The topics of one node. `prefix` may have several levels, `node` is one.

    Raises: BadRequest when either could not stand in a topic.
    """

    prefix: str
    node: str

    def __post_init__(self) -> None:
        if "/" in self.node:
            message = f"node {self.node!r}: a node's name is one topic level, without '/'"
            raise BadRequest(message)
        if not all(self.base.split("/")):
            message = f"topic {self.base!r}: neither prefix nor node may be empty or have an empty level"
            raise BadRequest(message)
        check_topic(self.base)

    @property
    def base(self) -> str:
        """`<prefix>/<node>`."""
        return f"{self.prefix}/{self.node}"

    @property
    def status(self) -> str:
        """Where the node says that it is there (retained)."""
        return f"{self.base}/status"

    @property
    def infer_filter(self) -> str:
        """All inference requests."""
        return self.infer("+")

    @property
    def command_filter(self) -> str:
        """All commands."""
        return self.command("+")

    @property
    def device_up_filter(self) -> str:
        """Everything devices say."""
        return f"{self.base}/device/+/up/+"

    def infer(self, model: str) -> str:
        """Return where requests for `model` (`kws`, `kws:canary`, `kws@3`) are published."""
        return f"{self.base}/infer/{model}"

    def command(self, verb: str) -> str:
        """Return where the command `verb` is published."""
        return f"{self.base}/cmd/{verb}"

    def event(self, kind: str) -> str:
        """Return where events of that kind are published."""
        return f"{self.base}/event/{kind}"

    def stream(self, order: str) -> str:
        """Return where the answers to a standing order are published."""
        return f"{self.base}/stream/{order}"

    def reply_default(self, topic: ClientTopic) -> str:
        """Return where the answer goes when the client named no place: `reply/<verb>` or `reply/infer/<model>`."""
        match topic:
            case InferTopic(model):
                return f"{self.base}/reply/infer/{model}"
            case CommandTopic(verb):
                return f"{self.base}/reply/{verb}"

    def device_down(self, device: DeviceId, kind: str) -> str:
        """Return where the gateway talks to `device`."""
        return f"{self.base}/device/{device}/down/{kind}"

    def device_up(self, device: DeviceId, kind: str) -> str:
        """Return where `device` talks to the gateway."""
        return f"{self.base}/device/{device}/up/{kind}"

    def parse(self, topic: str) -> ClientTopic | DeviceUp | None:
        """Return what `topic` is to this node; None when it is nothing that is listened to."""
        head = self.base + "/"
        if not topic.startswith(head):
            return None
        match topic.removeprefix(head).split("/"):
            case ["infer", model] if model:
                return InferTopic(model)
            case ["cmd", verb] if verb:
                return CommandTopic(verb)
            case ["device", device, "up", kind] if device and kind:
                return DeviceUp(device, kind)
        return None

    def check_reply(self, topic: str, *, allowed: Iterable[str]) -> None:
        """Pass when an answer may go to `topic`: under one of the `allowed` prefixes and on no control topic of any node.

        Raises: BadRequest when it is no topic; Forbidden when it is not allowed.
        """
        check_topic(topic)
        if self._is_control(topic):
            message = f"reply topic {topic!r} is a control topic; name one of your own"
            raise Forbidden(message)
        prefixes = tuple(each.rstrip("/") for each in allowed)
        if not any(topic.startswith(prefix + "/") for prefix in prefixes):
            message = f"reply topic {topic!r} is not allowed; it must begin with one of: {', '.join(prefixes)}"
            raise Forbidden(message)

    def _is_control(self, topic: str) -> bool:
        """Tell whether obeying somebody's reply topic would let them speak with the gateway's own rights."""
        head = self.prefix + "/"
        levels = topic.removeprefix(head).split("/")
        return topic.startswith(head) and len(levels) > 1 and levels[1] in _CONTROL


def check_topic(topic: str) -> None:
    """Pass when a message may be published on `topic`.

    Raises: BadRequest on wildcards, control characters, `$…`, or an unreasonable length: a broker answers several of
        these by closing the connection, which would let one client cut off all others.
    """
    if not topic or topic.startswith("$") or not topic.isprintable() or "+" in topic or "#" in topic:
        message = f"{topic[:80]!r} is no topic to publish on: no wildcards, no '$' in front, printable text only"
        raise BadRequest(message)
    if len(topic.encode()) > _MAX_TOPIC_BYTES or topic.count("/") >= _MAX_LEVELS:
        message = f"topic {topic[:80]!r}…: at most {_MAX_TOPIC_BYTES} bytes and {_MAX_LEVELS} levels"
        raise BadRequest(message)
