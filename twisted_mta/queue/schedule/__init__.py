"""When a recipient is tried, and in which order: pure, but for timers."""
