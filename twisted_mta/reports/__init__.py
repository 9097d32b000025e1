"""Reports to other domains on mail in their name: aggregate reports of DMARC (RFC 9990)."""
