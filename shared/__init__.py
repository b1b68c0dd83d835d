"""What the services share: the rules of a migration, the NBD protocol, messages, the bus, the configuration."""
