import subprocess
import sys

PROGRAM = """
import sys
import gatewayd.cli.command
sys.exit(any(name in sys.modules for name in ("pydantic", "aiohttp", "asyncio")))
"""


def test_importing_it_brings_nothing_heavy() -> None:
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False).returncode == 0
