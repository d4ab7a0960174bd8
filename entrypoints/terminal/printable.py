"""What a terminal may be given of a text that somebody else wrote."""

# All of C0 but tab and newline, DEL, and C1: what moves cursors, renames windows and types into shells.
_CONTROLS = dict.fromkeys((*(code for code in range(32) if code not in (9, 10)), *range(127, 160)))


def printable(text: str) -> str:
    """Returns the text without terminal control characters; tabs and newlines stay."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """Returns the text as a single line without terminal control characters."""
    return " ".join(printable(text).split())
