"""ARC (RFC 8617): chains of seals that forwarders have put on a message, verified and not made."""
