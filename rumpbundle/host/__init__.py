"""This machine: its environment, the programs on it, how outputs take their names, threads."""
