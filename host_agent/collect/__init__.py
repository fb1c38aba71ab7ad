"""What each tenant uses on this host: CPU, memory, network and disk, and how much it waits for them.

A figure that cannot be read is absent with the reason; nothing is invented, and an estimate names itself.
"""
