"""CHUNKING (RFC 3030): content comes in counted chunks, and no octet of it has to be looked at.

The verb, BDAT, is in the session, because what it does, it does to the framing.
"""

from . import Extension

CHUNKING = Extension("CHUNKING")
