"""A program of its own: make an Ed25519 key and print its two halves in hexadecimal, the secret one first.

The daemon makes its first key so: the library that makes it takes 9 MB, which a node without pushes never needs again.
"""

import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def main() -> None:
    """Print the key."""
    private = Ed25519PrivateKey.generate()
    halves = private.private_bytes_raw(), private.public_key().public_bytes_raw()
    sys.stdout.write(" ".join(half.hex() for half in halves))


if __name__ == "__main__":
    main()
