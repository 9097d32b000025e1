"""The examples of the documentation, run over loopback sockets."""
