"""The suppression list: addresses that bounce again and again get no more mail of our users."""
