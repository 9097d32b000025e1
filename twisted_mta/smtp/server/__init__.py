"""The server side of SMTP and LMTP, pure: octets in, decisions to make and replies out."""
