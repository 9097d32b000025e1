"""Milters: the codec, and filters that a script plays."""
