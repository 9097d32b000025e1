"""Random changes of the program, and which of them the tests notice."""
