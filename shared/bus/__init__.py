"""How services reach each other and the journal: small interfaces, their NATS implementation, and in-memory doubles for tests."""
