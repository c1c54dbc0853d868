"""A project file, ``rumpbundle.toml``: what is built, named and described once (docs/project.md).

``reading`` makes a value of the text, ``rows`` one image a row of a table, ``entry`` what is to be bundled;
``record`` remembers what was, and ``maker`` builds what is not up to date, one after the other, or ``fleet`` in
batches on many machines.

msgspec takes 40 ms to import, so this package is imported only where a project file is used.
"""
