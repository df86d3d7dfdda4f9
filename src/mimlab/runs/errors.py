"""The one error that is the user's to mend.

The command line prints its message in place of a traceback and exits with code 2. It must not be raised once
anything has been written: by then a failure belongs in the run's `status`.
"""


class InputError(ValueError):
    """What was asked for cannot be done as asked.

    The message says what was given, what is allowed, and what to do instead, in a few lines.
    """
