"""The on-disk records of disk containers, shared by their readers and their writers."""
