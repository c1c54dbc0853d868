"""File systems we write: ISO 9660 with Rock Ridge, FAT, ext2, and the cpio archive of an initrd."""
