"""Health: the troubles that keep mail from being accepted or delivered, and how long each lasts."""
