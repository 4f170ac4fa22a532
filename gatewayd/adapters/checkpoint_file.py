"""The checkpoint of what was learned: one small file, replaced as a whole, or not at all."""

import asyncio
import logging
import os
from pathlib import Path

from gatewayd.core.errors import NotStored
from gatewayd.core.learned import Learned
from gatewayd.wire.checkpoint import MAX_BYTES, BrokenCheckpoint, decode_learned, encode_learned

logger = logging.getLogger(__name__)


class CheckpointFile:
    """Reads and replaces the file at `path`; its directory must exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load_learned(self) -> Learned | None:
        """Return the checkpoint; None when there is none, or (logged) none that can be read."""
        return await asyncio.to_thread(self._load)

    async def save_learned(self, learned: Learned) -> int:
        """Replace the checkpoint; return its bytes. Raises: NotStored."""
        return await asyncio.to_thread(self._save, learned)

    def _load(self) -> Learned | None:
        try:
            with self._path.open("rb") as file:
                return decode_learned(file.read(MAX_BYTES + 1))
        except FileNotFoundError:
            return None
        except (BrokenCheckpoint, OSError) as error:
            logger.warning(
                "estimates begin anew, their checkpoint was dropped",
                extra={"fields": {"path": self._path, "reason": str(error)}},
            )
            return None

    def _save(self, learned: Learned) -> int:
        content = encode_learned(learned)
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise NotStored(f"{self._path}: {error.strerror}") from error
        return len(content)
