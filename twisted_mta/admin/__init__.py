"""The questions of the operator's tool, the status page and programs, and their answers."""
