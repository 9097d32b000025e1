"""What `twisted-mta check` does: everything that a start would read is read, and then tried.

Each module looks at one side of the machine and yields findings; none of them writes anything, and
none needs an MTA that runs.
"""

from .finding import Finding, Report
from .machine import Machine
from .report import report

__all__ = ["Finding", "Machine", "Report", "report"]
