"""gatewayd's bones without gatewayd: paho on asyncio's readers, and the same worker process; nothing decided, nothing checked.

mqtt_skeleton.py PORT TOPIC MODEL
"""

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script

from gatewayd.adapters.mqtt_prompt import PromptClient
from gatewayd.adapters.workers import Workers
from gatewayd.core.engine import EngineSpec
from gatewayd.core.model import Place, Variant, Verdict
from gatewayd.core.names import Digest
from gatewayd.core.tensor import Tensor
from gatewayd.wire.tflite import read_model


def variant_of(path: Path) -> Variant:
    """Return what the worker has to know of the file."""
    runs = Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.001)
    return Variant("tflite-int8", Digest("0" * 64), path.stat().st_size, read_model(path.read_bytes()), (runs,))


async def main(port: int, topic: str, path: Path, variant: Variant) -> None:
    """Serve for ever."""
    spec = variant.structure.inputs[0]
    loop = asyncio.get_running_loop()
    requests: asyncio.Queue[paho.MQTTMessage] = asyncio.Queue()
    client = PromptClient(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = lambda _client, _userdata, message: requests.put_nowait(message)
    client.on_connect = lambda client, *_: client.subscribe(topic, 1)

    def write_soon(*_: object) -> None:
        loop.call_soon(client.loop_write)

    client.on_socket_register_write = write_soon
    async with Workers(lambda _: path, [EngineSpec("litert", None)], clock=time.monotonic) as workers:

        async def serve() -> None:
            while True:
                message = await requests.get()
                tensor = Tensor(spec.name, spec.dtype, spec.shape, bytes(message.payload))
                run = await workers.run(variant, [tensor], timeout_s=5.0)
                output = run.outputs[0]
                values = {"name": output.name, "shape": list(output.shape), "data": list(output.values())}
                document = {"model_name": "kws", "model_version": "1", "outputs": [values]}
                asked: Any = message.properties
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho left it so
                properties.CorrelationData = asked.CorrelationData
                properties.ContentType = "application/json"
                client.publish(asked.ResponseTopic, json.dumps(document), message.qos, properties=properties)

        await workers.preload(variant, timeout_s=30)
        client.connect("127.0.0.1", port)
        opened: Any = client.socket()
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(opened, client.loop_read)
        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(serve(), name=f"serve-{number}")
            while True:
                await asyncio.sleep(1)
                client.loop_misc()


if __name__ == "__main__":
    model = Path(sys.argv[3])
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], model, variant_of(model)))
