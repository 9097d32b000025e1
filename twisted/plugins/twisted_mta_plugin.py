"""The ``twistd mta`` plugin; the program itself is in `twisted_mta`."""

from twisted.application.service import ServiceMaker

mta = ServiceMaker(
    "twisted-mta",
    "twisted_mta.daemon",
    "A complete mail transfer agent: receives, queues and delivers mail.",
    "mta",
)
