"""The least that serves a model over HTTP in Python: aiohttp and LiteRT in one process, nothing checked, nothing isolated.

bare_aiohttp.py PORT NAME=MODEL...
"""

import json
import sys

import numpy as np
from aiohttp import web
from litert_models import DTYPES, NAMES, LiteRt


def application(models: dict[str, LiteRt]) -> web.Application:
    """Return the application."""

    async def infer(request: web.Request) -> web.Response:
        model = models[request.match_info["model"]]
        body = await request.read()
        header_bytes = request.headers.get("Inference-Header-Content-Length")
        if header_bytes is None:
            tensor = json.loads(body)["inputs"][0]
            return _json(request, model, model.run(np.array(tensor["data"], DTYPES[tensor["datatype"]])))
        split = int(header_bytes)
        tensor = json.loads(body[:split])["inputs"][0]
        return _binary(request, model, model.run(np.frombuffer(body, DTYPES[tensor["datatype"]], offset=split)))

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"ready": True})

    app = web.Application()
    app.router.add_post("/v2/models/{model}/infer", infer)
    app.router.add_get("/v2/health/ready", ready)
    return app


def _document(request: web.Request, model: LiteRt, output: np.ndarray, **fields: object) -> dict[str, object]:
    tensor = {
        "name": model.output["name"],
        "shape": list(output.shape),
        "datatype": NAMES[output.dtype],
        **fields,
    }
    return {"model_name": request.match_info["model"], "model_version": "1", "outputs": [tensor]}


def _json(request: web.Request, model: LiteRt, output: np.ndarray) -> web.Response:
    return web.json_response(_document(request, model, output, data=output.ravel().tolist()))


def _binary(request: web.Request, model: LiteRt, output: np.ndarray) -> web.Response:
    content = output.tobytes()
    head = json.dumps(_document(request, model, output, parameters={"binary_data_size": len(content)})).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return web.Response(body=head + content, headers=headers)


if __name__ == "__main__":
    port, *named = sys.argv[1:]
    loaded = {name: LiteRt(path) for name, _, path in (each.partition("=") for each in named)}
    web.run_app(application(loaded), host="127.0.0.1", port=int(port), print=None, access_log=None)
