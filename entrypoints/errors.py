"""What keeps a command from its work and only the person at the terminal can mend."""


class OperatorError(Exception):
    """One line that says what is wrong and how to mend it; never a secret's value."""


class ServerError(OperatorError):
    """Why the service can't be served; one line for the operator."""
