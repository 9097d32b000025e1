"""The real world: time, randomness, threads, files, sockets."""
