"""The values of mail: addresses, envelopes, messages, next hops, replies, outcomes."""
