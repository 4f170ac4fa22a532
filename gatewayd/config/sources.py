"""The sections of the config about the registry: where models come from, what builds them, what becomes of old ones."""

from typing import Annotated

from gatewayd.config.types import FilePath, Seconds, Section, within


class Registry(Section):
    """What becomes of versions that nobody uses. `keep_retired_s` is how long a retired one can be brought back."""

    collect_every_s: Seconds = 86_400.0
    keep_retired_s: Annotated[float, within(0, 366 * 86_400)] = 7 * 86_400.0


class Sources(Section):
    """Where models come from by themselves. `folder` null: none is watched."""

    folder: FilePath | None = None
    look_every_s: Seconds = 5.0
    allow_local_addresses: bool = False


class Plugin(Section):
    """A compiler plugin. `python` null: the daemon's own interpreter."""

    python: FilePath | None = None


class Plugins(Section):
    """Compiler plugins, each under the interpreter that has its tool."""

    int8: Plugin = Plugin()
    ethos_u: Plugin = Plugin()
    timeout_s: Seconds = 300.0
