"""What the services say to each other and to the operator: the shapes of requests, replies and events, and their codec."""
