"""The sending side: SMTP to other hosts, Maildirs here."""
