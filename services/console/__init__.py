"""The operator's command, `cutover`. It talks to the services over NATS alone, as anyone can."""
