"""The least that serves MQTT in Python: paho's own loop in one thread; an echo, or LiteRT with nothing checked or isolated.

mqtt_loop.py PORT TOPIC [MODEL]
"""

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def _answerer(path: str | None) -> Callable[[bytes], bytes | str]:
    if path is None:
        return bytes
    import numpy as np  # noqa: PLC0415 - the echo does without
    from litert_models import NAMES, LiteRt  # noqa: PLC0415 - as above

    model = LiteRt(path)
    shape = [int(each) for each in model.output["shape"]]
    kind = NAMES[np.dtype(model.output["dtype"])]

    def answer(payload: bytes) -> str:
        output = model.run(np.frombuffer(payload, model.input["dtype"]))
        tensor = {"name": model.output["name"], "shape": shape, "datatype": kind, "data": output.ravel().tolist()}
        return json.dumps({"model_name": "kws", "model_version": "1", "outputs": [tensor]})

    return answer


def _send_at_once(_client: paho.Client, _userdata: object, opened: Any) -> None:  # noqa: ANN401 - paho knows no type for it
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main(port: int, topic: str, path: str | None = None) -> None:
    """Serve for ever."""
    answer = _answerer(path)

    def on_message(client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        asked: Any = message.properties
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho left it so
        properties.CorrelationData = asked.CorrelationData
        properties.ContentType = "application/json"
        client.publish(asked.ResponseTopic, answer(bytes(message.payload)), message.qos, properties=properties)

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = on_message
    client.on_socket_open = _send_at_once
    client.on_connect = lambda client, *_: client.subscribe(topic, 1)
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
