"""Deliver messages: to other hosts by SMTP or LMTP, into Maildirs, and to the application."""
