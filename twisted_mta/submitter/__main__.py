"""``python -m twisted_mta.submitter``: the program without its script."""

from .command import main

main(name="sendmail")
