"""The version, where nothing heavy needs to be imported to read it."""

from importlib.metadata import version

__version__ = version("deepskip")
