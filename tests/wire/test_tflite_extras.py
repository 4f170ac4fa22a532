import io
import zipfile

import pytest

from gatewayd.core.graph import Metadata
from gatewayd.wire.tflite import read_graph, read_model
from tests import tiny_models

networks = pytest.importorskip("bench.networks")


def with_archive(content: bytes, files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content + packed.getvalue()


def test_every_tensor_and_operator_is_read_with_its_cost() -> None:
    graph = read_graph(tiny_models.int8_model())
    (node,) = graph.main.nodes
    assert (node.operator, node.inputs, node.outputs, node.macs) == ("FULLY_CONNECTED", (0, 1, 2), (3,), 256)
    assert [(each.name, each.kind, each.byte_count, each.scales, each.is_constant) for each in graph.main.tensors] == [
        ("in", "INT8", 64, 1, False), ("w", "INT8", 256, 1, True), ("b", "INT32", 16, 1, True), ("out", "INT8", 4, 1, False),
    ]  # fmt: skip


def test_calls_and_variables_are_read() -> None:
    graph = read_graph(networks.single("STREAM", "INT8", 1))
    assert [node.calls for node in graph.main.nodes if node.operator == "CALL_ONCE"] == [(1,)]
    names = {node.resource for each in graph.subgraphs for node in each.nodes if node.operator == "VAR_HANDLE"}
    assert len(names) == 1
    assert read_graph(networks.single("WHILE", "INT8", 1)).main.nodes[0].calls == (1, 2)


def test_labels_come_from_the_archive_behind_the_model() -> None:
    content = with_archive(tiny_models.int8_model(), {"readme.md": b"x", "labels.txt": b"no\nyes\n"})
    assert read_graph(content).labels == ("no", "yes")
    assert read_model(content).operators == read_model(tiny_models.int8_model()).operators


@pytest.mark.parametrize(
    "files",
    [{}, {"notes.md": b"x"}, {"labels.txt": b"\xff\xfe"}, {"labels.txt": b"a\x00b"}, {"labels.txt": b"x" * 300_000}],
    ids=["empty", "other", "not UTF-8", "unprintable", "bomb"],
)
def test_labels_that_are_none_do_not_matter(files: dict[str, bytes]) -> None:
    assert read_graph(with_archive(tiny_models.int8_model(), files)).labels == ()


def test_a_damaged_archive_does_not_matter() -> None:
    content = with_archive(tiny_models.int8_model(), {"labels.txt": b"no\nyes\n"})
    start = len(tiny_models.int8_model())
    for at in range(start, len(content)):
        damaged = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        assert read_graph(damaged).labels in ((), ("no", "yes"))


def compiled(code: str) -> bytes:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(tiny_models.int8_model(), 0))
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32
    model.operatorCodes[0].customCode = code
    model.description = "made for a test"
    entry = schema.MetadataT()
    entry.name, entry.buffer = "OfflineMemoryAllocation", 1
    model.metadata = [entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("code", "accelerator"), [("edgetpu-custom-op", "edgetpu"), ("ethos-u", "ethos-u"), ("MyOp", "")]
)
def test_compiled_files_are_recognised(code: str, accelerator: str) -> None:
    assert read_graph(compiled(code)).accelerator == accelerator
    assert read_model(compiled(code)).accelerator == accelerator


def test_what_the_file_says_of_itself() -> None:
    graph = read_graph(compiled("ethos-u"))
    assert graph.description == "made for a test"
    assert graph.metadata == (Metadata("OfflineMemoryAllocation", 256),)
    assert graph.has_offline_plan
    forecast = read_model(compiled("ethos-u")).forecast
    assert forecast is not None
    assert (forecast.host_bytes, forecast.reason) == (None, "the file holds a memory plan of its own")
