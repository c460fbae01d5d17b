"""Byte pairs of a few thousand captions: a tokenizer of CLIP's kind."""

import json
from collections.abc import Sequence

from diffreward.interop.tokenizer import END, START, WORDS

SUFFIX = "</w>"
"""Of pieces that end a word."""


def learn_vocabulary(texts: Sequence[str], size: int) -> tuple[dict[str, int], list[str]]:
    """Pieces by identifier, and the pairs that are merged, in their order.

    Every byte is a piece, alone and at the end of a word, so that any text has identifiers.

    Args:
        texts: to learn from; their case does not matter.
        size: pieces at most, with the two tokens that begin and end a text.

    Raises:
        ValueError: if all bytes do not fit, or ``tokenizers`` is not installed.
    """
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ValueError(
            f"captions need the tokenizers package ({error}); pip install -e '.[images]'"
        ) from error
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = 2 * len(letters) + 2
    if size < least:
        raise ValueError(f"{size} pieces have no room for all bytes; use {least} or more")
    model = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(letters),
        initial_alphabet=letters,
        end_of_word_suffix=SUFFIX,
        special_tokens=[START, END],
        show_progress=False,
    )
    model.train_from_iterator((text.lower() for text in texts), trainer)
    found = json.loads(model.to_str())["model"]
    vocabulary = dict(found["vocab"])
    for letter in letters:  # that ended no word of the texts
        vocabulary.setdefault(letter + SUFFIX, len(vocabulary))
    merges = [m if isinstance(m, str) else " ".join(m) for m in found["merges"]]
    return vocabulary, merges
