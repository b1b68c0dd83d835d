"""A volume: where application I/O is routed to the devices, in order."""
