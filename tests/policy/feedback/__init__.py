"""Tests of complaint feedback."""
