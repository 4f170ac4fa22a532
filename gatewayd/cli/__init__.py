"""The client commands, rendered from the verb table."""
