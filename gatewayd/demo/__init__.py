"""The demonstration: an outside client that drives a real daemon and simulated boards over MQTT."""
