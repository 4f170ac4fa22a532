"""The verb table: every verb once, rendered by each edge and the CLI."""
