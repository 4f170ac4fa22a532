"""The one verb table and the way in: every edge and the command line go through here, and add no meaning of their own."""

import asyncio
import difflib
from collections.abc import Mapping

from pydantic import BaseModel

from gatewayd.api import (
    building,
    devices,
    dropping,
    fit,
    inference,
    joining,
    keys,
    loading,
    models,
    node,
    opinions,
    pushes,
    registry,
    sources,
    streams,
)
from gatewayd.api.loading import RepositoryRow, repository_rows
from gatewayd.api.models import ModelMetadata, metadata
from gatewayd.api.services import Services
from gatewayd.api.verb import AnyVerb, Arguments, Caller, Role
from gatewayd.core.errors import NotFound
from gatewayd.core.names import parse_model_ref
from gatewayd.core.request import InferenceResult
from gatewayd.wire.tensors import InferenceBody

VERBS: Mapping[str, AnyVerb] = {
    verb.name: verb
    for verb in (
        *models.VERBS,
        *registry.VERBS,
        *sources.VERBS,
        *building.VERBS,
        *loading.VERBS,
        *fit.VERBS,
        *devices.VERBS,
        *dropping.VERBS,
        *joining.VERBS,
        *pushes.VERBS,
        *inference.VERBS,
        *streams.VERBS,
        *opinions.VERBS,
        *keys.VERBS,
        *node.VERBS,
    )
}


def verbs_of(role: Role) -> tuple[str, ...]:
    """Return the verbs that a caller of the role may use, in order."""
    return tuple(sorted(name for name, verb in VERBS.items() if verb.role <= role))


# Reading this much JSON takes about 2 ms; beyond it the loop is not held up.
_LONG_BYTES = 2**18


class Api:
    """The verbs bound to the services."""

    verbs: Mapping[str, AnyVerb] = VERBS

    def __init__(self, services: Services) -> None:
        self._services = services

    def verb(self, name: str) -> AnyVerb:
        """Return the verb. Raises: NotFound naming the nearest ones."""
        found = self.verbs.get(name)
        if found is None:
            near = difflib.get_close_matches(name[:64], self.verbs, n=3) or sorted(self.verbs)
            raise NotFound(f"no verb {name[:64]!r}; there are: {', '.join(near)}")
        return found

    async def call(self, name: str, arguments: bytes | Mapping[str, object], caller: Caller) -> BaseModel:
        """Run a verb. `arguments` is a JSON object (no bytes: no arguments) or a mapping of the same.

        Raises: NotFound (no such verb), Forbidden, BadRequest (every mistake with its path), TooLarge, and what the
        verb itself raises.
        """
        verb = self.verb(name)
        verb.check_role(caller)
        self.settle()
        result: BaseModel = await verb.handler(self._services, await _parsed(verb, arguments), caller)
        return result

    async def infer(self, model: str, body: InferenceBody, *, arrived_s: float | None = None) -> InferenceResult:
        """Serve one inference. `model` is `kws`, `kws:stable` or `kws@3`; `arrived_s` as in `Requests.make`.

        Raises: any GatewayError.
        """
        return await self._services.inference.infer(self._services.requests.make(model, body, arrived_s=arrived_s))

    def settle(self) -> None:
        """Enter what the answers so far have taught, so that what is told next holds the last one, too."""
        self._services.inference.settle()

    def model_names(self) -> tuple[str, ...]:
        """Return the names of all models, in order."""
        return tuple(sorted({str(version.model) for version in self._services.catalog.versions()}))

    def repository_index(self, *, only_ready: bool) -> list[RepositoryRow]:
        """Return every version with whether it can be asked."""
        return repository_rows(self._services, only_ready=only_ready)

    def metadata(self, model: str) -> ModelMetadata:
        """Return inputs, outputs and versions of a model. Raises: BadRequest, UnknownModel."""
        catalog = self._services.catalog
        return metadata(catalog.resolve(parse_model_ref(model)), catalog.versions())


async def _parsed(verb: AnyVerb, arguments: bytes | Mapping[str, object]) -> Arguments:
    if isinstance(arguments, bytes) and _LONG_BYTES < len(arguments) <= verb.max_bytes:
        parsed: Arguments = await asyncio.to_thread(verb.parse, arguments)
        return parsed
    return verb.parse(arguments)  # type: ignore[no-any-return]  # the table forgets each verb's own types
