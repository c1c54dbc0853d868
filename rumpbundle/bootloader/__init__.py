"""GRUB's images, and the machine code and scripts we add to the boot."""
