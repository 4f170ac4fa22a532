"""The machine: one file per outside thing."""
