"""The offload manager: the only writer of a device's control registers."""
