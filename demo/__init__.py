"""The demonstration: a volume in use, migrated from end to end through the public command, and the proof that nothing was lost."""
