"""What others can check: who made an image (``minisign``), and what is in it (``sbom``)."""
