"""The demonstration: a volume in use, migrated end to end by the public command, and the proof that nothing is lost."""
