"""What our pytest does beyond pytest."""
