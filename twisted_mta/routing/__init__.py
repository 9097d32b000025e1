"""From a forward-path to a next hop."""
