"""The files that a server of volumes does TLS with: which they are, and whether they will do."""
