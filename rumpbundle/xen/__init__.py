"""Xen: which domain a bundle needs, what its toolstack reads, and PV-GRUB."""
