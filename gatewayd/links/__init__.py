"""How devices are reached."""
