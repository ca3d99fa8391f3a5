"""The one exception that users see: a sentence with the file, line or field, and what to do."""


class InputError(ValueError):
    """Something from outside is not as it must be; the message is one sentence for a person."""
