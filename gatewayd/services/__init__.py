"""What the verbs mean, over ports."""
