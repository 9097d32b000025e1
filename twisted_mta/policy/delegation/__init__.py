"""Postfix's policy delegation protocol; ``[[policy_service]]``."""
