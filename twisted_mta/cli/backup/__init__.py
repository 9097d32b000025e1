"""``twisted-mta backup``: a consistent copy of the state directory."""
