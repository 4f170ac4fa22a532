"""Which model has a bigger one that is asked when the device's answer is not sure enough. Values only; see `core.cascade`."""

from gatewayd.core.model import Version
from gatewayd.core.names import ModelName, ModelRef
from gatewayd.core.record import record

# J (read it as milliseconds) of a wrong answer unless the operator says: worth asking a node within half a second each time.
DEFAULT_WRONG_J = 500.0
MAX_OPINIONS = 256
"""Bounds memory and the file."""


@record
class SecondOpinion:
    """`bigger` is asked on the node about answers of `model`; `wrong_j` is what a wrong answer costs, in J (see `Weights`)."""

    model: ModelName
    bigger: ModelRef
    wrong_j: float = DEFAULT_WRONG_J


def unsuited(small: Version, big: Version) -> str:
    """Return why `big` cannot judge `small`'s answers, "" when it can."""
    mine, theirs = small.signature, big.signature
    if small.model == big.model and small.number == big.number:
        return f"{big} is the same version"
    if not mine.labels or mine.labels != theirs.labels:
        return f"{small} and {big} must have the same labels"
    if [spec.shape for spec in mine.inputs] != [spec.shape for spec in theirs.inputs]:
        return f"{small} and {big} take inputs of other shapes"
    if mine.preprocessing != theirs.preprocessing:
        return f"{small} takes {mine.preprocessing or 'raw values'}, {big} takes {theirs.preprocessing or 'raw values'}"
    return ""
