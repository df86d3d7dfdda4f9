"""Where runs begin and end: configurations checked on the way in, results written whole or not at all."""

from mimlab.runs.errors import InputError

__all__ = ["InputError"]
