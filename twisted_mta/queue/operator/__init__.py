"""The operator: operations on the queue, selections of recipients, tallies, interventions."""
