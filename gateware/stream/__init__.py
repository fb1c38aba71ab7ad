"""Packet streams: what a beat and a header are, and the elastic blocks that every other folder uses."""
