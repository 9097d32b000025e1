"""``twisted-mta tls``: TLS with other hosts, and what to publish about our own."""
