"""Lists in the DNS (RFC 5782): addresses and domains that mail is refused or marked for."""
