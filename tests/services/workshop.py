"""A world with compiler plugins: fakes that write what they were asked for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from gatewayd.core.building import ETHOS_U, INT8, Compiled, Recipe
from gatewayd.core.errors import EngineMissing, ModelRefused
from gatewayd.core.model import Operator, Structure
from gatewayd.core.names import Digest, parse_model_ref
from gatewayd.core.tensor import DType
from gatewayd.services.building import Builder, BuilderPorts, Built
from tests.services.world import INPUT, OUTPUT, STRUCTURE, World, world

FLOATS = replace(
    STRUCTURE,
    inputs=(replace(INPUT, dtype=DType.FP32, quantization=None),),
    outputs=(replace(OUTPUT, dtype=DType.FP32, quantization=None),),
)
NPU = replace(STRUCTURE, operators=(Operator("ethos-u", 1, 1),))
SAMPLES = bytes(4 * 4 * 3)


@dataclass
class FakeCompilers:
    """Writes what plugin, source and options were; as a real one, the same for the same."""

    versions: dict[str, str] = field(default_factory=lambda: {INT8: "tool 1", ETHOS_U: "vela 5"})
    compiled: list[tuple[str, str]] = field(default_factory=list)
    output: bytes | None = None

    async def version(self, plugin: str) -> str:
        if plugin not in self.versions:
            raise EngineMissing(f"plugin {plugin} needs a tool: pip install it")
        return self.versions[plugin]

    async def compile(self, recipe: Recipe, samples: Digest | None) -> Compiled:
        if recipe.plugin == INT8 and samples is None:
            raise ModelRefused("int8 needs samples")
        self.compiled.append((recipe.plugin, recipe.source.name))
        made = f"{recipe.plugin} of {recipe.source.digest} {recipe.options}".encode()
        return Compiled(made if self.output is None else self.output, "done")


def read(content: bytes) -> Structure:
    if content.startswith(b"float"):
        return FLOATS
    return NPU if content.startswith(b"ethos-u") else STRUCTURE


def check(plugin: str, content: bytes) -> str:
    if not content.startswith(plugin.encode()):
        raise ModelRefused("the plugin did nothing")
    return "all of it"


@dataclass
class Workshop:
    w: World
    compilers: FakeCompilers
    builder: Builder

    async def build(self, wanted: str, ref: str = "kws") -> Built:
        return await self.builder.build(parse_model_ref(ref), wanted, who="ann")

    async def add(self, content: bytes = b"float model", samples: bytes = SAMPLES) -> None:
        await self.w.catalog.add(
            model=parse_model_ref("kws").name, files=[content], labels=(), preprocessing="", note="", who="ann",
            samples=samples,
        )  # fmt: skip


def builder_of(w: World, compilers: FakeCompilers) -> Builder:
    ports = BuilderPorts(w.store, w.artifacts, compilers, check, read, lambda: 1.7e9)
    return Builder(ports, catalog=w.catalog, tracking=w.tracking)


@asynccontextmanager
async def workshop(folder: Path) -> AsyncIterator[Workshop]:
    async with world(folder, read=read) as w:
        compilers = FakeCompilers()
        yield Workshop(w, compilers, builder_of(w, compilers))
