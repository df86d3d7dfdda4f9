"""Where runs begin and end: configurations checked on the way in, results written whole or not at all.

Tables and JSON are in `mimlab.runs.tables`, apart because they load PyArrow.
"""

from mimlab.runs.config import build, check, merge, read_toml, to_mapping, write_toml
from mimlab.runs.directory import RunDirectory
from mimlab.runs.errors import InputError

__all__ = ["InputError", "RunDirectory", "build", "check", "merge", "read_toml", "to_mapping", "write_toml"]
