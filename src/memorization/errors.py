"""The one exception whose message is written for the person at the keyboard."""


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to write instead; no traceback is shown."""
