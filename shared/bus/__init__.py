"""How services reach each other and the journal: small interfaces, NATS behind them, and an in-memory bus for tests."""
