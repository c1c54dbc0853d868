"""What the tests share: readers that are not ours, test kernels, a QEMU to boot under."""
