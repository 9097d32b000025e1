"""TLS, as a server and as a client: certificates, contexts, the memory of hosts."""
