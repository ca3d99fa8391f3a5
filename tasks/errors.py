"""The exceptions that people see: a sentence with the file, line or field, and what to do."""


class InputError(ValueError):
    """Something from outside is not as it must be; the message is one sentence for a person."""


class DataTestError(RuntimeError):
    """A data test of sql/ found rows that must not be: a fault of ours, with examples."""
