"""SPF (RFC 7208): whether the owner of a domain lets a client send mail in its name."""
