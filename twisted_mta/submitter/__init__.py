"""``twisted-mta-sendmail``: hands mail of this machine's programs to the MTA, as sendmail does.

Programs start it for each message, so it loads the standard library alone.
"""
