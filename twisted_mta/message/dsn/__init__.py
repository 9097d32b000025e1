"""Delivery status notifications: bounces, delay notices and notices of success."""
