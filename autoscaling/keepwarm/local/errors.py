"""What can keep the local servers from running, said so that the user can act."""


class LocalError(Exception):
    """A sentence for the user; the command prints it and exits with status 1."""
