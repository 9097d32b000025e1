"""For tests: of this program, and of programs that use it."""
