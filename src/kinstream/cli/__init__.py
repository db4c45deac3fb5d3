"""The command line: one file or folder a command.

Each has `add_parser(subparsers)`, which sets `run` to a function from the parsed arguments to the exit status, and imports what
it needs only when it runs.
"""
