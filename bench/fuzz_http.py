"""schemathesis against a running daemon: every operation of its OpenAPI description, valid and invalid input.

    python -m bench.fuzz_http [--examples N] [--seed N]

Exit code 1 when an answer is a server error or not what the description says.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.common import BUILD, ROOT
from bench.node import Gateway, models

PROGRAM = ROOT / "build" / "fuzz-http-venv" / "bin" / "schemathesis"
CONFORMANCE = ("status_code", "content_type", "response_headers", "response_schema")
CHECKS = ",".join(["not_a_server_error", *(f"{each}_conformance" for each in CONFORMANCE)])


def main() -> int:
    """Run schemathesis and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="per operation")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Gateway(Path(folder)) as gateway:
        gateway.admit(models()[0])
        command = [
            str(PROGRAM), "run", f"http://127.0.0.1:{gateway.port}/api/openapi.json", "--checks", CHECKS,
            "--max-examples", str(args.examples), "--seed", str(args.seed), "--generation-deterministic",
            "--suppress-health-check", "all", "--request-timeout", "30",
            # The stream of events does not end; tests of its own read it.
            "--exclude-path", "/api/events",
        ]  # fmt: skip
        return subprocess.run(command, check=False, cwd=BUILD).returncode


if __name__ == "__main__":
    sys.exit(main())
