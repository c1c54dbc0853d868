"""The machine code and the scripts we add to the boot: :mod:`rumpbundle.grub` puts them together."""
