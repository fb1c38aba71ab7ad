"""PCI Express endpoint core on vendor-neutral TLP streams."""
