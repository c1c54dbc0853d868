"""Faults, injected: what a kill, a full disk or a failing one at any call leaves behind, and a power cut."""
