"""The promise about mail, held by worlds of agents, random traffic and faults, seed by seed."""
