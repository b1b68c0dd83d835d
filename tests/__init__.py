"""Every test of Cutover: `unit`, `property`, `integration` (one part with the real world), `acceptance` (the whole)."""
