"""What models exist and where their aliases point: an immutable value, replaced as a whole when something changes.

Readers keep the one they got; a change copies the maps it touches (1,000 versions: microseconds) and shares the rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace

from gatewayd.core.errors import Conflict, UnknownModel
from gatewayd.core.model import Version
from gatewayd.core.names import STABLE, Alias, ModelName, ModelRef
from gatewayd.core.record import record

_LISTED = 8  # an error names this many alternatives: enough to see a typo, short enough for one log line


@record
class AliasMove:
    """A recorded move of an alias; `version` None: it was removed. `moved_at` is wall time in seconds since 1970."""

    model: ModelName
    alias: Alias
    version: int | None
    moved_at: float
    who: str
    why: str


@record
class Retirement:
    """A version taken out of use. `retired_at` is wall time in seconds since 1970."""

    model: ModelName
    version: int
    retired_at: float
    who: str
    why: str


def place_at(moves: Sequence[AliasMove], alias: Alias, at: float) -> AliasMove | None:
    """Return the move that decided what `alias` meant at wall time `at`; None when it did not exist yet.

    `moves` are one model's, in the order they were made, which also decides where a clock was set back.
    """
    found = None
    for move in moves:
        if move.alias == alias and move.moved_at <= at:
            found = move
    return found


def place_before(moves: Sequence[AliasMove], alias: Alias) -> int | None:
    """Return where `alias` pointed before its last move; None when it has not been anywhere else."""
    places = [move.version for move in moves if move.alias == alias]
    return places[-2] if len(places) > 1 else None


@record
class Registry:
    """Versions by model and number, aliases by model, what is retired. Treat the mappings as read-only."""

    _versions: Mapping[ModelName, Mapping[int, Version]] = field(default_factory=dict)
    _aliases: Mapping[ModelName, Mapping[Alias, int]] = field(default_factory=dict)
    _retired: Mapping[tuple[ModelName, int], Retirement] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        versions: Iterable[Version],
        aliases: Mapping[tuple[ModelName, Alias], int],
        retired: Iterable[Retirement] = (),
    ) -> "Registry":
        """Build a registry from what a store holds.

        Raises: Conflict on a number that stands twice; UnknownModel on an alias of a version that does not exist.
        """
        numbers: dict[ModelName, dict[int, Version]] = {}
        for version in versions:
            if numbers.setdefault(version.model, {}).setdefault(version.number, version) is not version:
                raise Conflict(f"{version} stands twice")
        registry = cls(numbers, {}, {(each.model, each.version): each for each in retired})
        for (model, alias), number in aliases.items():
            registry = registry.with_alias(model, alias, number)
        return registry

    def resolve(self, ref: ModelRef) -> Version:
        """Return the version `ref` names; a bare model name means its `stable` alias. Constant time.

        Raises: UnknownModel saying what exists.
        """
        numbers = self._numbers(ref.name)
        if ref.version is not None:
            return self._version(ref.name, ref.version)
        alias = ref.alias or STABLE
        number = self._aliases.get(ref.name, {}).get(alias)
        if number is None:
            raise UnknownModel(self._no_alias(ref.name, alias))
        return numbers[number]

    def with_version(self, version: Version) -> "Registry":
        """Return a registry that holds `version` too. Raises: Conflict when its number exists."""
        numbers = self._versions.get(version.model, {})
        if version.number in numbers:
            raise Conflict(f"{version} exists already: the next number is {self.next_number(version.model)}")
        added = {**numbers, version.number: version}
        return replace(self, _versions={**self._versions, version.model: added})

    def with_alias(self, model: ModelName, alias: Alias, number: int | None) -> "Registry":
        """Return a registry whose `alias` points at version `number`, or is gone (None; no error when it was not there).

        Raises: UnknownModel when there is no such model or version; Conflict when it is retired.
        """
        if number is not None:
            self.check_in_use(self._version(model, number))
        aliases = {name: at for name, at in self._aliases.get(model, {}).items() if name != alias}
        if number is not None:
            aliases[alias] = number
        return replace(self, _aliases={**self._aliases, model: aliases})

    def with_retired(self, retirement: Retirement) -> "Registry":
        """Return a registry in which the version is retired.

        Raises: UnknownModel; Conflict when it is already, or an alias names it.
        """
        version = self._version(retirement.model, retirement.version)
        self.check_in_use(version)
        named = sorted(name for name, at in self.aliases(version.model).items() if at == version.number)
        if named:
            raise Conflict(f"{version} is what {', '.join(named)} names: move or remove the alias first")
        return replace(self, _retired={**self._retired, (version.model, version.number): retirement})

    def without_retirement(self, model: ModelName, number: int) -> "Registry":
        """Return a registry in which the version is in use again. Raises: UnknownModel; Conflict when it is not retired."""
        version = self._version(model, number)
        if self.retirement(version) is None:
            raise Conflict(f"{version} is not retired")
        kept = {key: each for key, each in self._retired.items() if key != (model, number)}
        return replace(self, _retired=kept)

    def retirement(self, version: Version) -> Retirement | None:
        """Return when, by whom and why the version was retired; None when it is in use."""
        return self._retired.get((version.model, version.number))

    def check_in_use(self, version: Version) -> None:
        """Raises: Conflict when the version is retired."""
        retired = self.retirement(version)
        if retired is not None:
            why = f": {retired.why}" if retired.why else ""
            raise Conflict(f"{version} was retired by {retired.who}{why}; name another version, or bring it back first")

    def versions(self) -> tuple[Version, ...]:
        """Return all versions, by model name and then by number."""
        return tuple(numbers[number] for _, numbers in sorted(self._versions.items()) for number in sorted(numbers))

    def aliases(self, model: ModelName) -> Mapping[Alias, int]:
        """Return where the model's aliases point; empty when it has none (or does not exist)."""
        return self._aliases.get(model, {})

    def next_number(self, model: ModelName) -> int:
        """Return the number the model's next version gets, from 1."""
        return max(self._versions.get(model, ()), default=0) + 1

    def _numbers(self, model: ModelName) -> Mapping[int, Version]:
        numbers = self._versions.get(model)
        if numbers is None:
            raise UnknownModel(f"no model {model!r}; {_listed('models', sorted(self._versions))}")
        return numbers

    def _version(self, model: ModelName, number: int) -> Version:
        numbers = self._numbers(model)
        if number not in numbers:
            newest_first = [str(each) for each in sorted(numbers, reverse=True)]
            raise UnknownModel(f"{model} has no version {number}; {_listed('versions', newest_first)}")
        return numbers[number]

    def _no_alias(self, model: ModelName, alias: Alias) -> str:
        there = [f"{name} → {number}" for name, number in sorted(self.aliases(model).items())]
        newest = max(self._versions[model])
        remedy = f"move the alias {alias!r} to a version, or name one, as in '{model}@{newest}'"
        return f"{model} has no alias {alias!r}; {_listed('aliases', there)}: {remedy}"


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return f"there are no {what}"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"there are the {what} {', '.join(names[:_LISTED])}{more}"
