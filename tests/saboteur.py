"""A worker whose engine does what its input says: answer, crash, hang, eat memory, lie. Everything around the engine is real.

It stands in for an interpreter (`EngineSpec.python`). Its model has the tensors of `tiny_models.two_input_model`: a and b,
FP32 [1,2], and their sum. a[0] is the order, b[0] its argument:
"""

import hashlib
import struct
import sys
from enum import IntEnum
from pathlib import Path

from gatewayd.core.engine import EngineSpec
from gatewayd.core.model import Place, Variant, Verdict
from gatewayd.core.names import Digest
from gatewayd.core.tensor import DType, Tensor
from gatewayd.wire.tflite import read_model
from tests import tiny_models


class Order(IntEnum):
    """What the first input asks for."""

    COUNT = 0  # answer how often this interpreter was asked
    CRASH = 1  # SIGSEGV
    ABORT = 2
    SLEEP = 3  # b[0] seconds
    EAT = 4  # memory until there is none
    EXIT = 5
    CLAIM_MANY = 6  # tell of 1000 answers
    WRONG_NUMBER = 7  # answer under another inference's number
    NOT_A_TIME = 8  # NaN seconds
    NO_REASON = 9  # refuse, and give no reason
    CUT_MEMORY = 10  # try to cut the shared memory off; answer 1 when it could not
    REFUSE = 11


_SCRIPT = """#!{python}
import os, signal, struct, sys, time
sys.path.insert(0, {root!r})
import numpy as np
from gatewayd.worker import engines, program, serve
from gatewayd.worker.ring import ANSWER, ANSWER_OFFSET, DONE, REFUSED

def descriptor(name):
    return int(sys.argv[sys.argv.index("--" + name) + 1])

class Answer:
    lie = None
    size = ANSWER.size
    def pack_into(self, memory, offset, number, status, reserved, seconds):
        if self.lie == 7: number += 1
        if self.lie == 8: seconds = float("nan")
        if self.lie == 9: status = REFUSED
        ANSWER.pack_into(memory, offset, number, status, reserved, seconds)

serve.ANSWER = answer = Answer()

class Model:
    def __init__(self):
        self.inputs = [engines.make_spec(n, np.float32, [1, 2], scale=0.0, zero_point=0) for n in "ab"]
        self.outputs = [engines.make_spec("sum", np.float32, [1, 2], scale=0.0, zero_point=0)]
        self.count = 0
    def invoke(self, inputs, outputs):
        self.count += 1
        result = float(self.count)
        order, argument = int(struct.unpack("<f", inputs[0][:4])[0]), struct.unpack("<f", inputs[1][:4])[0]
        if order == 1: os.kill(os.getpid(), signal.SIGSEGV)
        if order == 2: os.abort()
        if order == 3: time.sleep(argument)
        if order == 4:
            eaten = []
            while True: eaten.append(bytearray(2**26))
        if order == 5: os._exit(7)
        if order == 6:
            os.write(descriptor("answered"), struct.pack("<Q", 1000))
            time.sleep(60)
        if order in (7, 8, 9): answer.lie = order
        if order == 10:
            try:
                os.ftruncate(descriptor("memory"), 0)
                result = 0.0
            except PermissionError:
                result = 1.0
        if order == 11: raise engines.ModelRefused("I would rather not")
        outputs[0][:] = struct.pack("<2f", result, 0)

class Engine:
    name, version, devices = "litert", "0", []
    def load(self, path, arena_bytes): return Model()

program.open_engine = lambda name, options: Engine()
sys.exit(program.main(sys.argv[2:]))
"""


def saboteur(folder: Path) -> EngineSpec:
    """Write the program; the file to load may be any."""
    path = folder / "saboteur"
    path.write_text(_SCRIPT.format(python=sys.executable, root=str(Path(__file__).parents[1])))
    path.chmod(0o755)
    return EngineSpec("litert", str(path))


def saboteur_variant(folder: Path, name: str) -> Variant:
    """Store a file to load under that name; each name is a variant of its own."""
    content = tiny_models.two_input_model() + name.encode()
    digest = Digest(hashlib.sha256(content).hexdigest())
    (folder / digest).write_bytes(content)
    verdicts = (Verdict(Place.NODE, "litert", runs=True, reason="", latency_s=0.001),)
    return Variant(name, digest, len(content), read_model(tiny_models.two_input_model()), verdicts)


def order(what: Order, argument: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the inputs that ask for it."""
    return tuple(  # type: ignore[return-value]  # two of them
        Tensor(name, DType.FP32, (1, 2), struct.pack("<2f", value, 0))
        for name, value in (("a", float(what)), ("b", argument))
    )


def answer(outputs: tuple[Tensor, ...]) -> float:
    """Return the first number of the answer."""
    value: float = struct.unpack("<f", outputs[0].content[:4])[0]
    return value
