"""Several processes that share the work: the parent's side, and that of a worker."""
