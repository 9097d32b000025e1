"""The failure of the database of a cluster."""


class DatabaseAway(OSError):
    """The database cannot be reached, or did not do what it was asked; the text is one line."""
