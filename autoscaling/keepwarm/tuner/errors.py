"""What the tuner will not do, as a sentence the user can act on."""


class TuneError(Exception):
    """The message says what was wrong, where, and what is allowed."""
