"""A model file's graph as read, never run: tensors, operators in execution order, and what the file says of itself.

It is read where it is needed (planning memory, showing costs) and not stored: `core.model.Structure` holds what lasts.
"""

from gatewayd.core.record import record


@record
class GraphTensor:
    """One tensor. `byte_count` is what its values take at run time, 0 when its size is not known before.

    `scales` counts the quantisation scales (0: not quantised, above 1: per channel). A constant's values are in the file; a
    variable keeps its values between runs.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    byte_count: int
    scales: int
    is_constant: bool
    is_variable: bool

    @property
    def is_float(self) -> bool:
        """Whether its values are floating point."""
        return self.kind in {"FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"}


@record
class GraphNode:
    """One operator in its place. `inputs` are tensor numbers of its subgraph, -1 for one left out.

    `calls` are the subgraphs it runs (IF, WHILE, CALL_ONCE), `resource` the variable a VAR_HANDLE names; `transposes` tells
    which of a BATCH_MATMUL's operands come transposed already.
    """

    operator: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    macs: int
    calls: tuple[int, ...] = ()
    resource: str = ""
    transposes: tuple[bool, bool] = (False, False)


@record
class Subgraph:
    """Tensors and the operators over them; the first subgraph of a graph is the model."""

    tensors: tuple[GraphTensor, ...]
    nodes: tuple[GraphNode, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@record
class Metadata:
    """A named blob in the file."""

    name: str
    byte_count: int


@record
class Graph:
    """A whole file. `accelerator` is what it was compiled for ("": nothing; "edgetpu", "ethos-u").

    `labels` are those that a label file inside the model gives to the elements of an output. `has_offline_plan`: the file says
    itself where its tensors go, and a runtime obeys.
    """

    subgraphs: tuple[Subgraph, ...]
    accelerator: str = ""
    description: str = ""
    metadata: tuple[Metadata, ...] = ()
    labels: tuple[str, ...] = ()
    has_offline_plan: bool = False

    @property
    def main(self) -> Subgraph:
        """The subgraph that one inference runs."""
        return self.subgraphs[0]
