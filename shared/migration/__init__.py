"""The rules of a migration, as data and pure functions: states, transitions, verdicts, and the records that tell of them.

Nothing in this package does I/O, reads a clock or draws a random number; whoever calls it passes in what it needs to know.
"""
