"""Moving a queue between the file of one machine and a database that several share."""
