"""TLS of listeners and to next hops: certificates, contexts, and the memory of hosts."""
