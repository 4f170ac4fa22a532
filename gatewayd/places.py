"""Where the files that come with gatewayd lie: in a checkout beside the package, installed under the environment's share/."""

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]
_INSTALLED = Path(sys.prefix) / "share" / "gatewayd"


def profiles_folder() -> Path:
    """Return the folder of the board profiles."""
    checkout = _CHECKOUT / "config" / "profiles"
    return checkout if checkout.is_dir() else _INSTALLED / "profiles"


def speaker_folder() -> Path:
    """Return the folder of the model `speaker`; only a checkout has it."""
    return _CHECKOUT / "models" / "speaker"
