"""Logs: one line for each thing that matters, as readable text or as JSON, each saying what it is about.

Nothing that came from elsewhere is obeyed by whoever reads a line, no line waits for its reader, and nothing is raised.
"""
