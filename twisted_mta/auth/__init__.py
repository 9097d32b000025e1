"""Who may authenticate, how that is proved, and as whom they may send."""
