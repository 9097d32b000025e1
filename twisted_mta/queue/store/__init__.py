"""The durable queue: the contract of a store, and the stores."""
