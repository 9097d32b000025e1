"""The content of messages, pure: header fields, trace, delivery status notifications."""
