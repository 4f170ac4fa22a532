"""Devices reached over OMA LwM2M 1.0–1.2: the server. `link` is what services see; only `endpoint` knows aiocoap."""
