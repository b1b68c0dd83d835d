"""The services of Cutover, each a process of its own; they import `shared` and themselves, never each other."""
