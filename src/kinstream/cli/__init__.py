"""Command line of kinstream: one module or package per command.

Each has `add_parser(subparsers)`, which sets `run` to a function from the parsed arguments to the exit status. Its other
imports happen only when it runs.
"""
