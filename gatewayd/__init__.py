"""gatewayd: TinyML as a Service on an edge node."""
