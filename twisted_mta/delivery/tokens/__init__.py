"""OAuth 2.0 access tokens for AUTH at next hops: where they come from, and how long they serve."""
