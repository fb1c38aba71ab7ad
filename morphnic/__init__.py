"""The command line of Morphnic: one module a subcommand, settings, errors and the version.

Nothing is imported here, so that `import morphnic.errors` costs nothing on a server without HDL tools.
"""
