"""PIPELINING and ENHANCEDSTATUSCODES: extensions that add nothing to any command."""

from . import Extension

PIPELINING = Extension("PIPELINING")
"""RFC 2920: commands may be sent in groups, which the framing of the session allows."""

ENHANCED_STATUS_CODES = Extension("ENHANCEDSTATUSCODES")
"""RFC 2034: every reply but the greeting and EHLO's carries an enhanced status code."""
