"""Readers of file systems, one module each."""
