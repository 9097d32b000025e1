"""Daily reports to other domains: on mail in their name, and on TLS with their hosts."""
