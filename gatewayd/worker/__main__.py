"""Start of the worker program. Run by path it loads its own directory as a package.

The daemon's own packages stay out of sight that way, which another interpreter could not use.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

_PACKAGE = "gatewayd_worker"


def _own_package() -> str:
    """Return the name under which this directory can be imported: by path there is none yet."""
    if __package__:
        return __package__
    here = Path(__file__).resolve().parent
    if sys.path and Path(sys.path[0]).resolve() == here:
        del sys.path[0]  # the modules here must not stand in for others of their names
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, str(here / "__init__.py"), submodule_search_locations=[str(here)]
    )
    if spec is None or spec.loader is None:
        message = f"cannot load {here} as a package"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = module
    spec.loader.exec_module(module)
    return _PACKAGE


if __name__ == "__main__":
    sys.exit(importlib.import_module(_own_package() + ".program").main())
