"""`python -m gatewayd.sim` is `gatewayd sim-device`."""

import argparse
import sys

from gatewayd.sim.command import add_arguments, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="gatewayd sim-device", description="A simulated device on a real broker.")
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
