"""Deliver messages: to other hosts by SMTP or LMTP, and into Maildirs here."""
