"""Compiler plugins: programs of their own that turn one model file into another, started by `gatewayd.adapters.compilers`.

Each runs by its path under whatever interpreter has its tool, imports nothing of gatewayd, and follows one interface:
`PROGRAM --describe` prints {"plugin", "version"} in JSON, or ends with code 4 and what to install on standard error;
`PROGRAM REQUEST` reads a JSON file {"input", "output", "samples", "input_bytes", "options", "memory_bytes"}, writes the new
model to the path `output` and prints {"report"}. What it made is judged by the daemon, which reads it.
"""
