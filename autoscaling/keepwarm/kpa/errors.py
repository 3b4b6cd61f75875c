"""What the twin refuses, in sentences a user can act on."""


class InputError(ValueError):
    """A policy, trace, manifest or recording that cannot be used; the message says why."""
