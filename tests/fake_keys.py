"""A hand-written fake of the keys that sign modules, for tests of the API."""

from dataclasses import dataclass, field, replace

from gatewayd.core.errors import NotFound
from gatewayd.core.keys import Key, KeyState


@dataclass
class FakeKeys:
    """One key that signs; more are made in order, with made-up names."""

    kept: list[Key] = field(default_factory=lambda: [Key("0" * 16, bytes(32), KeyState.SIGNING, 1_700_000_000.0)])

    def known(self) -> tuple[Key, ...]:
        return tuple(self.kept)

    async def add(self) -> Key:
        number = len(self.kept)
        self.kept.append(Key(f"{number:016x}", bytes([number]) * 32, KeyState.TRUSTED, 1_700_000_000.0 + number))
        return self.kept[-1]

    async def sign_with(self, key: str) -> Key:
        for index, each in enumerate(self.kept):
            if each.state is KeyState.SIGNING:
                self.kept[index] = replace(each, state=KeyState.TRUSTED)
        return self._set(key, KeyState.SIGNING)

    async def revoke(self, key: str) -> Key:
        return self._set(key, KeyState.REVOKED)

    def _set(self, key: str, state: KeyState) -> Key:
        for index, each in enumerate(self.kept):
            if each.id == key:
                self.kept[index] = replace(each, state=state)
                return self.kept[index]
        raise NotFound(f"no key {key!r}")
