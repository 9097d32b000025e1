"""What the tool and the page ask of a running mail transfer agent, and the answers."""
