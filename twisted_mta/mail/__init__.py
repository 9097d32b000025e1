"""The values that are handed on: envelopes, addresses, replies."""
