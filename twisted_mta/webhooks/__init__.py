"""Webhooks: events of mail are posted to URLs, signed, from the outbox in the store."""
