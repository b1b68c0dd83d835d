"""What whoever started this process is told of it: systemd by datagrams, a health check by a line on a socket."""
