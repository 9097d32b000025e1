"""``twisted-mta dkim``: the keys that mail is signed with, and their records in the DNS."""
