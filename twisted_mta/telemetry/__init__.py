"""What a mail transfer agent says of itself: log, live traces, metrics."""
