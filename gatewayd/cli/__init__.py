"""The client commands, rendered from the verb table and sent over HTTP. Entry: `gatewayd.cli.command`."""
