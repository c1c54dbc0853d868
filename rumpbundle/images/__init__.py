"""Finished images of any format, read: the disk inside a container, the files on it, and a ``report`` of all."""
