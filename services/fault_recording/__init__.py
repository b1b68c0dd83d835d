"""The only writer of error flags and device faults. What it has answered is stored."""
