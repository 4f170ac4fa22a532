"""What an object's resources are: name, type, operations, single or multiple. The definitions themselves are in `objects`."""

from collections.abc import Iterable
from enum import Flag, auto

from gatewayd.core.record import record
from gatewayd.wire.lwm2m.paths import RESOURCE, Path
from gatewayd.wire.lwm2m.values import Type


class Operations(Flag):
    """What a server may do with a resource."""

    READ = auto()
    WRITE = auto()
    EXECUTE = auto()


@record
class ResourceDefinition:
    """One resource. `kind` None: it can only be executed."""

    id: int
    name: str
    kind: Type | None
    operations: Operations
    is_multiple: bool = False
    is_mandatory: bool = False
    units: str = ""


@record
class ObjectDefinition:
    """One object with its resources."""

    id: int
    name: str
    resources: tuple[ResourceDefinition, ...]
    is_multiple: bool = False
    is_mandatory: bool = False
    version: str = "1.0"

    def resource(self, id: int) -> ResourceDefinition | None:  # noqa: A002 - LwM2M's word for it
        """Return the definition of a resource, None where there is none."""
        return next((each for each in self.resources if each.id == id), None)


class Definitions:
    """Objects by their ids. Ids that are not here are no error: their values have no type."""

    def __init__(self, objects: Iterable[ObjectDefinition] = ()) -> None:
        self._objects = {each.id: each for each in objects}
        self._resources = {(each.id, one.id): one for each in self._objects.values() for one in each.resources}

    def object(self, id: int) -> ObjectDefinition | None:  # noqa: A002 - LwM2M's word for it
        """Return an object's definition."""
        return self._objects.get(id)

    def resource(self, path: Path) -> ResourceDefinition | None:
        """Return the definition of the resource that `path` is, or is below."""
        if path.object is None or path.resource is None:
            return None
        return self._resources.get((path.object, path.resource))

    def kind(self, path: Path) -> Type | None:
        """Return the type of the value at `path`."""
        found = self.resource(path)
        return None if found is None else found.kind

    def is_multiple(self, path: Path) -> bool:
        """Return whether the resource at `path` has instances; what is not defined has where the path says so."""
        found = self.resource(path)
        return path.depth > RESOURCE if found is None else found.is_multiple

    def __or__(self, other: "Definitions") -> "Definitions":
        """Return both; the right one counts where both define an object."""
        return Definitions((self._objects | other._objects).values())


NONE = Definitions()
