"""Subcommands of `morphnic`, one module each; see `morphnic.program` for what a module provides."""
