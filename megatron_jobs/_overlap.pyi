"""Words and phrases of texts; see csrc/overlap."""

def words(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word, in bytes of the text's UTF-8.

    A word is a run of letters, digits and marks; a letter of a script without spaces is one.
    """

class Phrases:
    """The runs of `size` words of texts, and where they occur in others.

    Words are compared byte by byte, so lower the case of texts first, if it does not matter.
    """

    def __init__(self, *, size: int, least: int) -> None:
        """`least`: a text of fewer than `size` words, but as many as this, is one phrase.

        Raises: ValueError when least is not from 1 to size.
        """

    def add(self, text: str) -> list[int]:
        """Add a text's phrases; their numbers, from 0, in order. Equal phrases have one number."""

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """(number of its first word, words, phrase) of every phrase in a text, in order.

        Of several that start with one word the longest comes first. Releases the GIL; nothing may
        be added meanwhile.
        """

    def words_of(self, phrase: int) -> str:
        """The words of a phrase with one space between them."""

    def __len__(self) -> int:
        """Phrases."""
