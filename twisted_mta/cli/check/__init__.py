"""``twisted-mta check``: reads all that a start would read, and tries it.

Each module checks one aspect and yields findings. None writes anything or needs a running MTA.
"""

from .finding import Finding, Report
from .machine import Machine
from .report import report

__all__ = ["Finding", "Machine", "Report", "report"]
