"""Programs that show what the tests only sample: every cut of a push, and that the proof can fail."""
