"""The predictions that admission keeps with a model: one for the wheel it measures with, two for microcontrollers."""

from gatewayd.core.arena import CORTEX_M, CORTEX_M_CMSIS_NN, HOST, predict
from gatewayd.core.graph import Graph
from gatewayd.core.model import Forecast
from gatewayd.core.tflm import objections


def forecast(graph: Graph) -> Forecast:
    """Predict the arena on each kind of build, and what speaks against running there at all."""
    host, plain, optimized = (predict(graph, runtime) for runtime in (HOST, CORTEX_M, CORTEX_M_CMSIS_NN))
    return Forecast(host.arena_bytes, plain.arena_bytes, optimized.arena_bytes, host.reason, objections(graph))
