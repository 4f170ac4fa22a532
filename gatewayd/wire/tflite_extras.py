"""What a TensorFlow Lite file holds beside tensors and operators: subgraph calls, metadata, label files, traces of a compiler.

Nothing here is a reason to refuse a model that would run, but what lies outside the file is.

Source: tensorflow/lite/schema/schema.fbs; label files: https://www.tensorflow.org/lite/models/convert/metadata (a ZIP archive
after the flatbuffer); operator names of compiled files: edgetpu.h of google-coral/edgetpu and ethos-u-vela's tflite writer.
"""

import io
import zipfile
import zlib
from collections.abc import Iterable

from gatewayd.core.errors import ModelRefused
from gatewayd.core.graph import Metadata
from gatewayd.wire.flatbuffer import I32, U8, U32, Table

MAX_METADATA = 64
"""Protects answers, which list them; files have one or two."""
MAX_METADATA_NAME_BYTES = 256
"""Protects answers."""
MAX_DESCRIPTION_BYTES = 4_096
"""Protects answers."""
MAX_LABEL_BYTES = 256 * 1024
"""Protects memory from an archive that unpacks to far more than it is; ImageNet's labels are 10 KB."""
MAX_LABELS = 20_000
"""Protects memory and answers."""
MAX_ARCHIVE_FILES = 64
"""Protects time."""

_ACCELERATORS = {"edgetpu-custom-op": "edgetpu", "ethos-u": "ethos-u"}
_CALLS = {"IF": (0, 1), "WHILE": (0, 1), "CALL_ONCE": (0,)}
_ARCHIVE_END = b"PK\x05\x06"
_ARCHIVE_END_BYTES = 22 + 65_535  # its record and the longest comment


def calls_of(operator: str, table: Table) -> tuple[int, ...]:
    """Return the subgraphs that the operator runs. Raises: ModelRefused."""
    options = table.table(4, what="options") if operator in _CALLS else None
    if options is None:
        return ()
    return tuple(max(0, options.scalar(slot, I32, 0, what="subgraph")) for slot in _CALLS[operator])


def resource_of(operator: str, table: Table) -> str:
    """Return the name of the variable that a VAR_HANDLE refers to, "" for any other operator. Raises: ModelRefused."""
    options = table.table(4, what="options") if operator == "VAR_HANDLE" else None
    return options.string(1, what="shared name", limit_bytes=MAX_METADATA_NAME_BYTES) if options is not None else ""


def transposes_of(operator: str, table: Table) -> tuple[bool, bool]:
    """Return which operands of a BATCH_MATMUL come transposed. Raises: ModelRefused."""
    options = table.table(4, what="options") if operator == "BATCH_MATMUL" else None
    if options is None:
        return False, False
    return bool(options.scalar(0, U8, 0, what="adjoint")), bool(options.scalar(1, U8, 0, what="adjoint"))


def accelerator_of(operators: Iterable[str]) -> str:
    """Return what the file was compiled for, by the custom operators that its compiler leaves; "" when for nothing."""
    return next((_ACCELERATORS[name] for name in operators if name in _ACCELERATORS), "")


def description_of(model: Table) -> str:
    """Return the file's description, "" when it has none that can be shown."""
    try:
        return model.string(3, what="description", limit_bytes=MAX_DESCRIPTION_BYTES)
    except ModelRefused:
        return ""


def metadata_of(model: Table) -> tuple[Metadata, ...]:
    """Return the names and sizes of the metadata. Raises: ModelRefused."""
    entries = model.tables(6, what="metadata", limit=MAX_METADATA)
    sizes = model.tables(4, what="buffer", limit=1 << 16) if entries else []
    return tuple(_metadata(entry, sizes) for entry in entries)


def _metadata(entry: Table, buffers: list[Table]) -> Metadata:
    name = entry.string(0, what="name", limit_bytes=MAX_METADATA_NAME_BYTES)
    index = entry.scalar(1, U32, 0, what="buffer")
    if index >= len(buffers):
        raise ModelRefused(f"{entry.where} uses buffer {index}, there are {len(buffers)}")
    return Metadata(name, buffers[index].vector(0, item_bytes=1, what="data", limit=1 << 26).count)


def labels_of(content: bytes) -> tuple[str, ...]:
    """Return the lines of the first label file in the archive behind the model, () when there is none that can be read."""
    if _ARCHIVE_END not in content[-_ARCHIVE_END_BYTES:]:
        return ()
    try:
        return _labels(content)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        OSError,
        LookupError,
    ):
        return ()  # what zipfile raises on archives that are none: the model itself may be fine


def _labels(content: bytes) -> tuple[str, ...]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [each for each in archive.infolist()[:MAX_ARCHIVE_FILES] if each.filename.endswith(".txt")]
        if not names:
            return ()
        with archive.open(names[0]) as file:
            text = file.read(MAX_LABEL_BYTES + 1)
    if len(text) > MAX_LABEL_BYTES:
        return ()
    lines = text.decode().splitlines()
    return tuple(lines) if len(lines) <= MAX_LABELS and all(line.isprintable() for line in lines) else ()
