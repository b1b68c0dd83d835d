"""The configuration of the services: one TOML file and the environment, read once, checked as a whole."""
