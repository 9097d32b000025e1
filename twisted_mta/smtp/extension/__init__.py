"""ESMTP extensions, one per file."""
