"""The client side of SMTP and LMTP, pure: replies in, commands out."""
