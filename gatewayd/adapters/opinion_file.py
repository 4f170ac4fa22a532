"""Which models have a second opinion: one small JSON file, replaced as a whole, or not at all."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from gatewayd.core.errors import BadRequest, NodeError, NotStored
from gatewayd.core.names import parse_model_name, parse_model_ref
from gatewayd.core.opinion import MAX_OPINIONS, SecondOpinion

_MAX_BYTES = MAX_OPINIONS * 512


class OpinionFile:
    """Reads and replaces the file at `path`; its directory must exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load_opinions(self) -> Sequence[SecondOpinion]:
        """Return all; none when there is no file. Raises: NodeError when it cannot be read."""
        return await asyncio.to_thread(self._load)

    async def save_opinions(self, opinions: Sequence[SecondOpinion]) -> None:
        """Replace all; durable before returning. Raises: NotStored."""
        await asyncio.to_thread(self._save, opinions)

    def _load(self) -> Sequence[SecondOpinion]:
        try:
            with self._path.open("rb") as file:
                rows = json.loads(file.read(_MAX_BYTES))
            return [
                SecondOpinion(parse_model_name(row["model"]), parse_model_ref(row["bigger"]), float(row["wrong_j"]))
                for row in rows
            ]
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError, KeyError, BadRequest) as error:
            raise NodeError(f"{self._path} cannot be read ({error!r}): mend it, or move it away") from error

    def _save(self, opinions: Sequence[SecondOpinion]) -> None:
        rows = [{"model": each.model, "bigger": str(each.bigger), "wrong_j": each.wrong_j} for each in opinions]
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            with fresh.open("w") as file:
                file.write(json.dumps(rows, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise NotStored(f"{self._path}: {error.strerror}") from error
