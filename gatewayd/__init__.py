"""gatewayd: TinyML as a Service on an edge node."""

__version__ = "0.1.0"
