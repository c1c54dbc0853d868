"""Finished images of any format, read: the disk inside a container, and the files on that disk."""
