"""Where models come from: what a manifest in the watched folder says. Values only."""

from gatewayd.core.model import NOTHING_SAID, About
from gatewayd.core.names import Alias, Digest, ModelName
from gatewayd.core.record import record


@record
class ManifestFile:
    """A file that belongs to a model: its name beside the manifest and the digest of its whole content."""

    name: str
    digest: Digest


@record
class ModelManifest:
    """What to admit. `version` is the number it must get (None: the next one); `alias` is moved to it (None: none)."""

    model: ModelName
    files: tuple[ManifestFile, ...]
    version: int | None = None
    alias: Alias | None = None
    labels: tuple[str, ...] = ()
    preprocessing: str = ""
    note: str = ""
    samples: ManifestFile | None = None
    about: About = NOTHING_SAID


@record
class FolderModel:
    """A manifest of the folder and the bytes of its files, all there and all as it says; or why it is not taken.

    `is_final` false: it may still become whole. `digest` is the manifest's own: a changed manifest is another model.
    """

    manifest_name: str
    digest: Digest
    manifest: ModelManifest | None
    files: tuple[bytes, ...] = ()
    samples: bytes = b""
    problem: str = ""
    is_final: bool = True
