"""The one register map and everything derived from it."""
