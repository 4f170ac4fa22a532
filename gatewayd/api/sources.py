"""The verbs by which model files come in otherwise than in one message: in parts, and from addresses."""

from typing import Annotated

from pydantic import Field

from gatewayd.api.models import MAX_ADD_BYTES, Described, VersionRow, admit, version_row
from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, FileContent, Positional, Result, Role, Verb
from gatewayd.core.command import Effect
from gatewayd.core.errors import (
    BadRequest,
    Conflict,
    DeadlineExceeded,
    ModelRefused,
    NodeError,
    NotFound,
    Overloaded,
    TooLarge,
)
from gatewayd.core.names import parse_digest
from gatewayd.services.fetching import shown
from gatewayd.services.uploads import UploadState
from gatewayd.wire.model_manifest import MAX_FILES

PART_BYTES = 96 * 1024
"""What fits an MQTT message of 256 KB in base64 with room for the rest; smaller parts are fine too."""

_Upload = Annotated[str, Field(min_length=1, max_length=64, description="its id, from upload.begin"), Positional()]
_DigestText = Annotated[str, Field(min_length=64, max_length=64, description="SHA-256 in hex")]
_Url = Annotated[str, Field(min_length=8, max_length=2048)]


class BeginUpload(Arguments):
    """Arguments of upload.begin: the size and SHA-256 of the whole file."""

    size_bytes: Annotated[int, Field(ge=1, le=2**31, description="of the whole file")]
    digest: _DigestText


class SendPart(Arguments):
    """Arguments of upload.part: bytes from `offset`, in order. A part sent twice does no harm."""

    upload: _Upload
    offset: Annotated[int, Field(ge=0, le=2**31, description="where in the file the part begins, in bytes")]
    content: Annotated[FileContent, Field(description="the part's bytes")]


class NameUpload(Arguments):
    """Arguments of upload.end and upload.cancel."""

    upload: _Upload


class UploadRow(Result):
    """An upload: `received` of `size_bytes` are here, `part_bytes` is the largest part; `whole` when models.add may take it."""

    upload: str
    received: int
    size_bytes: int
    digest: str
    whole: bool
    part_bytes: int = PART_BYTES


class Cancelled(Result):
    """What upload.cancel answers."""

    upload: str


class FetchModel(Described):
    """Arguments of models.fetch: http or https addresses, each with the SHA-256 of what has to be there."""

    sources: Annotated[
        tuple[_Url, ...],
        Field(min_length=1, max_length=MAX_FILES, description="http or https addresses of model files"),
    ]
    digests: Annotated[
        tuple[_DigestText, ...],
        Field(min_length=1, max_length=MAX_FILES, description="the SHA-256 of each in hex, in the same order"),
    ]


async def begin(services: Services, args: BeginUpload, caller: Caller) -> UploadRow:  # noqa: ARG001 - a handler's shape
    """Announce a file that comes in parts."""
    return _row(services.uploads.begin(size_bytes=args.size_bytes, digest=parse_digest(args.digest)))


async def part(services: Services, args: SendPart, caller: Caller) -> UploadRow:  # noqa: ARG001 - a handler's shape
    """Take the next bytes."""
    return _row(services.uploads.part(args.upload, offset=args.offset, content=args.content))


async def end(services: Services, args: NameUpload, caller: Caller) -> UploadRow:  # noqa: ARG001 - a handler's shape
    """Check that all is there and as announced."""
    return _row(await services.uploads.end(args.upload))


async def cancel(services: Services, args: NameUpload, caller: Caller) -> Cancelled:  # noqa: ARG001 - a handler's shape
    """Forget an upload."""
    services.uploads.cancel(args.upload)
    return Cancelled(upload=args.upload)


async def fetch(services: Services, args: FetchModel, caller: Caller) -> VersionRow:
    """Fetch files and admit them as the model's next version."""
    files = await services.fetching.files(args.sources, [parse_digest(each) for each in args.digests])
    source = " ".join(shown(each) for each in args.sources)[:1000]
    return version_row(services, await admit(services, args, files, source=source, caller=caller))


def _row(state: UploadState) -> UploadRow:
    return UploadRow(
        upload=state.upload,
        received=state.received,
        size_bytes=state.size_bytes,
        digest=state.digest,
        whole=state.whole,
    )


VERBS: tuple[AnyVerb, ...] = (
    Verb(
        "upload.begin", "Announce a file that comes in parts", BeginUpload, UploadRow, begin, Role.ADMIN,
        errors=(BadRequest, Overloaded, TooLarge), changes=Effect.MEMORY,
    ),
    Verb(
        "upload.part", "Send the next part of a file", SendPart, UploadRow, part, Role.ADMIN,
        errors=(BadRequest, Conflict, NotFound, TooLarge), changes=Effect.MEMORY,
    ),
    Verb(
        "upload.end", "End a file: models.add can take it then", NameUpload, UploadRow, end, Role.ADMIN,
        errors=(BadRequest, Conflict, NotFound), changes=Effect.MEMORY,
    ),
    Verb("upload.cancel", "Forget an upload", NameUpload, Cancelled, cancel, Role.ADMIN, changes=Effect.MEMORY),
    Verb(
        "models.fetch", "Fetch model files from addresses and admit them as the next version", FetchModel, VersionRow, fetch,
        Role.ADMIN,
        errors=(BadRequest, DeadlineExceeded, ModelRefused, NodeError, NotFound, TooLarge), max_bytes=MAX_ADD_BYTES,
    ),
)  # fmt: skip
