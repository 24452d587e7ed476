"""What exercises say, as tests read it."""


def words(result):
    """The message of a check's result on one line."""
    return " ".join(result.message.split())
