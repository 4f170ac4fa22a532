"""Sans-IO: bytes to values and back, and protocol machines without sockets."""
