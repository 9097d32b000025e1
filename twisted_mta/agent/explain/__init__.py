"""Why mail is where it is, and what would become of it: facts for programs, words for people."""
