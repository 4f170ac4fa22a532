"""Run under tritonclient's own environment by test_http_triton.py: what its user does, with the client's defaults.

triton_conversation.py HOST:PORT MODEL INPUT OUTPUT
"""

import json
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def main() -> None:
    """Print what was seen as JSON."""
    url, model, input_name, output_name = sys.argv[1:]
    client = triton.InferenceServerClient(url)
    seen = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "nothing_ready": client.is_model_ready("nothing"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(model),
        "index": client.get_model_repository_index(),
    }
    client.load_model(model)
    seen["loaded"] = client.get_model_repository_index()[0]["reason"]
    spec = seen["model"]["inputs"][0]
    values = np.linspace(-1, 1, int(np.prod(spec["shape"])), dtype=np.float32).reshape(spec["shape"])
    given = triton.InferInput(input_name, spec["shape"], spec["datatype"])
    given.set_data_from_numpy(values)
    answers = {"defaults": client.infer(model, [given])}
    wanted = [triton.InferRequestedOutput(output_name)]
    answers["named"] = client.infer(model, [given], outputs=wanted, request_id="r-7", model_version="1")
    given.set_data_from_numpy(values, binary_data=False)
    wanted = [triton.InferRequestedOutput(output_name, binary_data=False)]
    answers["json"] = client.infer(model, [given], outputs=wanted)
    answers["gzip"] = client.infer(model, [given], request_compression_algorithm="gzip", timeout=2_000_000)
    seen["answers"] = {name: answer.as_numpy(output_name).ravel().tolist() for name, answer in answers.items()}
    seen["dtype"] = str(answers["defaults"].as_numpy(output_name).dtype)
    seen["id"] = answers["named"].get_response()["id"]
    seen["async"] = client.async_infer(model, [given]).get_result().as_numpy(output_name).ravel().tolist()
    wrong = triton.InferInput(input_name, [1, 2], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 2), np.float32))
    try:
        client.infer(model, [wrong])
    except InferenceServerException as error:
        seen["error"] = [error.status(), error.message()]
    client.unload_model(model)
    json.dump(seen, sys.stdout)


main()
