"""``twisted-mta check``: reads all that a start would read, and tries it.

Each module checks one aspect and yields findings. None writes anything or needs a running MTA.
"""
