"""Answers the operator's commands, and records what hosts have decided: the only writer of recorded states."""
