"""What one payload of a device may make the gateway read, whatever its format."""

MAX_STRUCTURED_BYTES = 65_536
"""Protects the event loop: so much is read in some milliseconds. The largest object here (/3 of a talkative client) has 2 KB."""
MAX_VALUE_BYTES = 1_048_576
"""Protects memory; a single value in text, opaque or CBOR is not parsed. An image as a sample has some 30 KB."""
MAX_RECORDS = 2048
"""Protects memory from payloads that are all heads: a record takes some 200 bytes."""
