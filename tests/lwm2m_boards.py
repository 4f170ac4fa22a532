"""What scripted LwM2M devices hold: trees of boards with our objects."""

import cbor2

from tests.lwm2m_client import Tree, Value

OUR_LINKS = '</>;rt="oma.lwm2m";ct=11542,</1/0>,</3/0>,</9/0>,</9/1>,</26241/0>,</26242/0>,</26242/1>'
SENSOR = {"name": "mic", "dtype": "INT8", "shape": [4], "preprocessing": "lpc12@1"}


def our_board(*, slots: int = 2, board: str = "nucleo-l4r5zi") -> Tree:
    """A board with the ML Runtime and ML Model objects, every slot empty."""
    runtime: dict[int, Value] = {
        0: board, 1: "cortex-m4", 2: 120, 3: 655_360, 4: 2_097_152, 5: "tflm", 6: "1.0", 7: 3, 8: 65_536, 9: 131_072,
        10: 1024, 15: 0, 18: 0, 19: 0.0,
    }  # fmt: skip
    tree = Tree({(26241, 0, key): value for key, value in runtime.items()})
    tree.values |= {(26241, 0, 13, 0): "mic", (26241, 0, 14, 0): cbor2.dumps(SENSOR)}
    tree.values |= {(3, 0, 0): "Acme", (3, 0, 1): "Board-1", (3, 0, 11, 0): 0, (3, 0, 16): "U"}
    for slot in range(slots):
        tree.values |= {(26242, slot, key): value for key, value in slot_values().items()}
        tree.values |= {(9, slot, 7): 0, (9, slot, 9): 0, (9, slot, 12): False, (9, slot, 0): "", (9, slot, 1): ""}
    return tree


def slot_values(
    state: int = 0, model: str = "", version: int = 0, digest: bytes = b"", push: int = 0, phase: int = 0
) -> dict[int, Value]:
    """The readable resources of one ML Model instance."""
    return {
        0: state, 1: model, 2: version, 3: digest, 6: b"", 7: 0, 8: 0.0, 9: 0, 10: "", 11: 0, 12: 0, 13: push,
        14: phase, 15: 0,
    }  # fmt: skip


def active_slot(digest: bytes = bytes(range(32))) -> dict[int, Value]:
    """A slot that runs `kws` version 1."""
    return slot_values(3, "kws", 1, digest)
