"""Version of this package: the single source for pyproject.toml, `kinstream.__version__` and `kinstream --version`."""

__version__ = "0.1.0.dev0"
