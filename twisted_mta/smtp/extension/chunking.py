"""CHUNKING (RFC 3030 §2): content comes in counted chunks, in which no final dot is looked for.

The session obeys the verb, BDAT, itself, because it changes the framing.
"""

from . import Extension

CHUNKING = Extension("CHUNKING")
