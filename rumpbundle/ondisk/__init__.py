"""The structures of disk formats, as they stand in files: shared by the writers and the readers."""
