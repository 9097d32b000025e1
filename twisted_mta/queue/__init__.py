"""The durable queue: its store, its schedule, and the runner that delivers its mail."""
