"""The protocol, pure: bytes in, values out. Nothing here imports a reactor or does I/O."""
