"""The config file as frozen values: `root` has the whole of it and reads it, the other modules a section each.

`files` looks at what a config names outside itself; `types` and `values` say what a value may be.
"""

from gatewayd.config.engines import Engine
from gatewayd.config.errors import ConfigError
from gatewayd.config.root import Config, load_config, parse_config

__all__ = ["Config", "ConfigError", "Engine", "load_config", "parse_config"]
