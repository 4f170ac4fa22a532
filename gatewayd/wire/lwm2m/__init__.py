"""LwM2M without sockets: paths, values, formats, registrations, object definitions. Bytes and values only.

Source: OMA LightweightM2M 1.0.2, 1.1.1 and 1.2.2, Core (messaging, data formats) and Transport (queue mode).
"""
