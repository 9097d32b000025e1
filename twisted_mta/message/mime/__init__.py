"""MIME (RFC 2045, RFC 2046): the parts of a content, and its conversion to 7 bits."""
