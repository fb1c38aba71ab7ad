"""A Linux guest with the PCIe function of a simulated device in it, under QEMU's own emulation, without root.

`packages` fetches QEMU, virtiofsd and a kernel, `machine.Guest` boots them, and `init` runs inside: the guest's root is
this machine's, read-only, so that the very Python and software that runs here runs there.
"""
