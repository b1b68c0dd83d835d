"""NBD exports of this host's volumes: a thin asyncio adapter over `shared.nbd`.

What is sent leaves by an outbox (`services.write_cloning.outbox`), the same that remote devices have.

exported     what an export asks of a volume
limits       every bound of this package
errors       what may go wrong on the operating side
listener     sockets: Unix, TCP, inherited
rights       who may open a Unix socket
tls_files    the files that TLS is done with
certificates what is in them
tls          TLS on the server's side
client       who is connected
line         a client's bytes while it negotiates, in clear text or under TLS
negotiation  the handshake over a line
wire         the way to and from a client afterwards: in clear text the socket itself (hot)
tls_wire     the same under TLS (hot)
inbox        the bytes that came in
ration       one connection's share of memory
submission   requests on their way to the volume (hot)
tray         replies to reads that need no waiting (hot)
answers      from a request that is done to its reply (hot)
block_status replies to the question for extents
sweeps       who gives way when memory is short
connection   one client in the transmission phase (hot)
server       exports by name, and their connections
"""
