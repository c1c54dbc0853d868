"""Bundling: from what is asked for (``recipe``) to the disk (``planning``) and the files (``writing``, ``batch``).

What others check the files by stands beside: ``checksums``, what is in them (``sbom``), who made them (``minisign``).
"""
