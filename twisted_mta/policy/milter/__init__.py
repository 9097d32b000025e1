"""Milters: filters that speak Sendmail's protocol, version 6, asked by a listener as policies."""
