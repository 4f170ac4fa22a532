"""OSCORE: CoAP messages protected end to end, without sockets: plaintext and context → option and ciphertext, and back.

Source: RFC 8613, with its mandatory algorithms (AES-CCM-16-64-128, HKDF with SHA-256).
"""
