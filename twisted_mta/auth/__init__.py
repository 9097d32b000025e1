"""AUTH: accounts, their credentials and addresses, and the authenticator that judges them."""
