"""Readers for what a kernel file can carry: ELF, Multiboot 1 and 2, the Linux boot protocol, PE, ELF notes.

Each takes a :class:`~rumpbundle.kernels.view.View`, believes nothing it reads, and returns a value or None. What is
wrong with a header is part of the value (``flaw``), because ``inspect`` shows headers that cannot be used as well.
:mod:`rumpbundle.kernels.unikernel` puts them together.
"""
