"""Byte pairs of a few thousand captions: a tokenizer of CLIP's kind.

The library that reads such tokenizers learns them as well, but breaks ties in an order
that changes from run to run.
"""

from collections import Counter
from collections.abc import Sequence

from diffreward.interop.tokenizer import END, START, WORDS

SUFFIX = "</w>"
"""Of pieces that end a word."""

Word = tuple[str, ...]
"""Its pieces."""


def learn_vocabulary(texts: Sequence[str], size: int) -> tuple[dict[str, int], list[str]]:
    """Pieces by identifier, and the pairs that are merged, in their order.

    Every byte is a piece, alone and at the end of a word, so that any text has identifiers
    (byte pairs: Sennrich et al., 2016).

    Args:
        texts: to learn from; their case does not matter.
        size: pieces at most, with the two tokens that begin and end a text.

    Raises:
        ValueError: if all bytes do not fit, or ``tokenizers`` is not installed.
    """
    try:
        from tokenizers import Regex, pre_tokenizers
    except ImportError as error:
        raise ValueError(
            f"captions need the tokenizers package ({error}); pip install -e '.[images]'"
        ) from error
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [START, END, *letters, *(letter + SUFFIX for letter in letters)]
    room = size - len(pieces)
    if room < 0:
        least = len(pieces)
        raise ValueError(f"{size} pieces have no room for all bytes; use {least} or more")
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    words: Counter[Word] = Counter()
    for text, count in Counter(text.lower() for text in texts).items():
        for word, _ in cut.pre_tokenize_str(text):
            words[(*word[:-1], word[-1] + SUFFIX)] += count
    merges: list[str] = []
    while len(merges) < room:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] += count
        if not pairs:
            break
        # Of equally frequent ones the first by its letters: the same on every machine.
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(" ".join(best))
        pieces.append("".join(best))
        words = Counter({_merged(word, best): count for word, count in words.items()})
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, merges


def _merged(word: Word, pair: tuple[str, str]) -> Word:
    """A word in which every such pair is one piece."""
    made: list[str] = []
    for piece in word:
        if made and (made[-1], piece) == pair:
            made[-1] += piece
        else:
            made.append(piece)
    return tuple(made)
