"""The NBD wire protocol, pure: bytes in, events out.

The truth is the protocol document of the NetworkBlockDevice project (`doc/proto.md`); section names in this package's
comments are that document's. Nothing here imports asyncio, sockets, clocks or the operating system.

    constants          numbers of the wire, and our own bounds
    errors             what a peer may do wrong, and errno as NBD tells it
    exports            what is said of an export, and what both sides agreed on
    options            the handshake's messages, packed and unpacked
    server_handshake   the server's side of it, as a state machine
    requests           a client's requests out of its byte stream (hot)
    replies            the answers (hot)
    client_handshake   the client's side of the handshake
    client_replies     a server's replies out of its byte stream
"""
