"""The disk as a value, and its parts: contents, extents, partition tables, trees of files, the plain-file writer."""
