"""The control socket, ``STATE/control.sock``: HTTP over a UNIX socket of mode 0600."""
