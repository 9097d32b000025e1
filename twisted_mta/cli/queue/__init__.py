"""``twisted-mta queue``: commands that list, show and change messages of the queue."""
