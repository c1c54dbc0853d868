"""Readers of disk containers, one module each."""
