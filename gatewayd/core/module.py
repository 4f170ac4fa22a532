"""The inference module: what travels to a device as a signed manifest and an artifact in some encoding. Values only.

Bytes are `gatewayd.wire.manifest` and docs/inference-module.md.
"""

from gatewayd.core.model import SelfTest
from gatewayd.core.names import Digest, ModelName
from gatewayd.core.record import record
from gatewayd.core.tensor import TensorSpec


@record
class Raw:
    """The artifact travels as it is."""


@record
class Deflate:
    """The artifact travels as raw DEFLATE (RFC 1951): `size_bytes` and `digest` are of the encoded bytes.

    A decoder needs a window of 2**`window_bits` bytes (9..15).
    """

    window_bits: int
    size_bytes: int
    digest: Digest


@record
class Delta:
    """The artifact travels as its difference from the one named `base`, which the device must hold. Not sent yet."""

    base: Digest
    size_bytes: int
    digest: Digest


Encoding = Raw | Deflate | Delta


@record
class Held:
    """A model that a device holds, named so that no other one is meant."""

    model: ModelName
    version: int

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


@record
class Manifest:
    """What a device must know of a model before a byte of it comes.

    `version` is the anti-rollback sequence; `digest` and `size_bytes` are of the decoded artifact; `operators` ascend.
    `self_test` None: having loaded and run once is enough. `replaces` is the newer version that the operator allows this one to
    take over from (0: none); it counts only while exactly that version runs. `instead_of` is another model that gives way when
    this one is accepted, and not before (None: none has to).
    """

    model: ModelName
    version: int
    target: str
    digest: Digest
    size_bytes: int
    encoding: Encoding
    runtime_abi: int
    operators: tuple[str, ...]
    arena_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    self_test: SelfTest | None
    replaces: int = 0
    instead_of: Held | None = None

    @property
    def transfer_bytes(self) -> int:
        """How many bytes go over the link."""
        return self.size_bytes if isinstance(self.encoding, Raw) else self.encoding.size_bytes
