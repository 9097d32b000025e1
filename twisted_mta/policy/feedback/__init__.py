"""Complaint feedback (RFC 9477, RFC 5965): fields that ask for reports, and the reports."""
