"""Tests of the suppression list."""
