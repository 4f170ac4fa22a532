"""The gateway's signing keys: one file only its owner may read, and beside it the public halves for whoever makes firmware.

Every change is a whole new file: written, synced, renamed, directory synced. Blocking calls of a few hundred bytes; verbs that
change keys are rare, so they run where they are called. What computes with keys is imported by the first signature.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewayd.core.errors import Conflict, NodeError, NotFound
from gatewayd.core.keys import Key, KeyState
from gatewayd.core.module import Manifest
from gatewayd.core.record import record
from gatewayd.wire.manifest import PUBLIC_KEY_BYTES, key_id, read_manifest, sign_manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_KEYS = 16
"""Bounds what firmware has to hold, and the file."""
_SECRETS, _PUBLIC = "keys.json", "trusted.txt"
_PRIVATE_FILE, _PRIVATE_FOLDER, _PUBLIC_FILE = 0o600, 0o700, 0o644
_SECRET_BYTES = 32
_MAKER = Path(__file__).with_name("fresh_key.py")
_MAKING_S = 30.0  # it takes 0.1 s; protects the start from a machine that starts no program any more


@record
class _Pair:
    """A key with its secret half."""

    key: Key
    secret: bytes = field(repr=False)


class Keys:
    """Signs manifests and keeps the keys. Obtain it from `open_keys`."""

    def __init__(self, folder: Path, pairs: Sequence[_Pair], wall_clock: Callable[[], float]) -> None:
        self._folder = folder
        self._pairs = tuple(pairs)
        self._wall_clock = wall_clock
        self._changing = asyncio.Lock()

    def known(self) -> tuple[Key, ...]:
        """Return every key ever made, oldest first; revoked ones stay in sight."""
        return tuple(pair.key for pair in self._pairs)

    def sign(self, manifest: Manifest) -> bytes:
        """Return the signed manifest. Raises: TooLarge, NodeError (the key file's halves do not belong together)."""
        pair = next(pair for pair in self._pairs if _signs(pair))
        private = _private(pair.secret)
        if private.public_key().public_bytes_raw() != pair.key.public:
            raise NodeError(
                f"key {pair.key.id}: its two halves do not belong together: restore {_SECRETS} from a backup"
            )
        return sign_manifest(manifest, private)

    def read(self, signed: bytes) -> Manifest:
        """Read what a key of ours signed that was not revoked since. Raises: BadRequest."""
        return read_manifest(signed, self.trusted())

    def trusted(self) -> Mapping[bytes, bytes]:
        """Return the public keys that were not revoked, by their names."""
        kept = (pair.key for pair in self._pairs if pair.key.state is not KeyState.REVOKED)
        return {bytes.fromhex(key.id): key.public for key in kept}

    async def add(self) -> Key:
        """Make a key that is trusted but does not sign yet, so that firmware can learn it first. Raises: Conflict, NodeError."""
        async with self._changing:
            if sum(pair.key.state is not KeyState.REVOKED for pair in self._pairs) >= MAX_KEYS:
                raise Conflict(f"{MAX_KEYS} keys are in use: revoke one that no device needs any more (keys.revoke)")
            pair = await asyncio.to_thread(_new_pair, self._wall_clock(), KeyState.TRUSTED)
            await self._keep((*self._pairs, pair))
        return pair.key

    async def sign_with(self, key: str) -> Key:
        """Sign with that key from now on; the one before stays trusted. Raises: NotFound, Conflict (revoked), NodeError."""
        async with self._changing:
            wanted = self._find(key)
            if wanted.key.state is KeyState.REVOKED:
                raise Conflict(f"key {key} was revoked: make another one (keys.new)")
            now_trusted = (_in_state(pair, KeyState.TRUSTED) if _signs(pair) else pair for pair in self._pairs)
            await self._keep(
                [_in_state(pair, KeyState.SIGNING) if pair.key.id == key else pair for pair in now_trusted]
            )
        return self._find(key).key

    async def revoke(self, key: str) -> Key:
        """Trust it no more. Devices trust it until their firmware is told. Raises: NotFound, Conflict (it signs), NodeError."""
        async with self._changing:
            if _signs(self._find(key)):
                raise Conflict(f"key {key} signs now: sign with another one first (keys.rotate)")
            await self._keep([_in_state(p, KeyState.REVOKED) if p.key.id == key else p for p in self._pairs])
        return self._find(key).key

    def _find(self, key: str) -> _Pair:
        found = next((pair for pair in self._pairs if pair.key.id == key), None)
        if found is None:
            raise NotFound(f"no key {key[:32]!r}; there are: {', '.join(each.id for each in self.known())}")
        return found

    async def _keep(self, pairs: Sequence[_Pair]) -> None:
        await asyncio.to_thread(_store, self._folder, pairs)
        self._pairs = tuple(pairs)


def open_keys(folder: Path, *, wall_clock: Callable[[], float] = time.time) -> Keys:
    """Read the keys in `folder`; at the first start make one. Raises: NodeError when they cannot be read, made or written."""
    try:
        rows = json.loads((folder / _SECRETS).read_bytes())["keys"]
        pairs = _load(rows)
        if not all("public" in row for row in rows):
            _store(folder, pairs)
    except FileNotFoundError:
        pairs = (_new_pair(wall_clock(), KeyState.SIGNING),)
        _store(folder, pairs)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise NodeError(f"key file {folder / _SECRETS} cannot be read ({error!r}): restore it from a backup") from error
    _write_public(folder, pairs)
    return Keys(folder, pairs, wall_clock)


def _new_pair(made_at: float, state: KeyState) -> _Pair:
    """Have a program make a key. Raises: NodeError."""
    # Isolated: its folder is full of modules that are called like others.
    command = [sys.executable, "-I", str(_MAKER)]
    try:
        ended = subprocess.run(command, capture_output=True, check=True, timeout=_MAKING_S)  # noqa: S603 - our own program
    except (OSError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()[-200:] or error
        raise NodeError(f"no key can be made: {why}") from error
    secret, public = (bytes.fromhex(half) for half in ended.stdout.decode().split())
    return _Pair(Key(key_id(public).hex(), public, state, made_at), secret)


def _private(secret: bytes) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - see fresh_key

    return Ed25519PrivateKey.from_private_bytes(secret)


def _in_state(pair: _Pair, state: KeyState) -> _Pair:
    return replace(pair, key=replace(pair.key, state=state))


def _signs(pair: _Pair) -> bool:
    return pair.key.state is KeyState.SIGNING


def _load(rows: Iterable[Mapping[str, Any]]) -> tuple[_Pair, ...]:
    pairs = []
    for row in rows:
        secret = bytes.fromhex(row["secret"])
        # Early files hold no public halves; once.
        public = bytes.fromhex(row["public"]) if "public" in row else _private(secret).public_key().public_bytes_raw()
        if len(public) != PUBLIC_KEY_BYTES or len(secret) != _SECRET_BYTES:
            raise ValueError("each half of a key has 32 bytes")
        pairs.append(_Pair(Key(key_id(public).hex(), public, KeyState(row["state"]), row["made_at"]), secret))
    if sum(map(_signs, pairs)) != 1:
        raise ValueError("not exactly one key signs")
    return tuple(pairs)


def _store(folder: Path, pairs: Sequence[_Pair]) -> None:
    rows = [
        {
            "secret": pair.secret.hex(),
            "public": pair.key.public.hex(),
            "state": pair.key.state.value,
            "made_at": pair.key.made_at,
        }
        for pair in pairs
    ]
    try:
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        _replace(folder / _SECRETS, json.dumps({"keys": rows}, indent=1).encode(), _PRIVATE_FILE)
        _write_public(folder, pairs)
    except OSError as error:
        raise NodeError(f"key folder {folder}: {error}: check its rights and the free space") from error


def _write_public(folder: Path, pairs: Sequence[_Pair]) -> None:
    """Write what `gatewayd sim-device --trust` and a firmware build read; only when it differs, to spare the disk."""
    kept = [pair.key for pair in pairs if pair.key.state is not KeyState.REVOKED]
    text = "".join(f"{key.public.hex()}  # {key.id} {key.state.value}\n" for key in kept).encode()
    path = folder / _PUBLIC
    if not path.exists() or path.read_bytes() != text:
        _replace(path, text, _PUBLIC_FILE)


def _replace(path: Path, content: bytes, mode: int) -> None:
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    for folder in (path.parent, path.parent.parent):
        _sync_directory(folder)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
