"""Bundling: from what is asked for (``recipe``) to the disk (``planning``) and the files (``writing``, ``batch``)."""
