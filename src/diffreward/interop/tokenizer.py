"""CLIP's tokenizer from its files, through the ``tokenizers`` package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffreward import files

WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What CLIP takes for a word."""
START, END = "<|startoftext|>", "<|endoftext|>"
CLASSES = (None, "CLIPTokenizer", "CLIPTokenizerFast")


class Tokeniser(NamedTuple):
    """Prompts to identifiers; a function of prompts."""

    model: Any
    length: int
    """Identifiers per prompt."""
    start: int
    end: int
    pad: int

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """Identifiers (count, length): longer prompts are cut, shorter ones padded."""
        ids = np.full((len(prompts), self.length), self.pad, np.int32)
        for row, prompt in zip(ids, prompts, strict=True):
            words = self._words(prompt)[: self.length - 2]
            row[: len(words) + 2] = [self.start, *words, self.end]
        return ids

    def too_long(self, prompts: Sequence[str]) -> list[int]:
        """Indices of the prompts that are cut."""
        room = self.length - 2
        return [i for i, p in enumerate(prompts) if len(self._words(p)) > room]

    def _words(self, prompt: str) -> list[int]:
        return self.model.encode(prompt, add_special_tokens=False).ids


def load_tokenizer(
    folder: str | Path, length: int, vocabulary: int | None = None
) -> Tokeniser:
    """Reads ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.

    Args:
        folder: of the tokenizer.
        length: identifiers per prompt, the first and the last word included.
        vocabulary: identifiers that the text encoder knows, if they are to be compared.

    Raises:
        ValueError: if a file is missing or damaged, an identifier is none of the
            encoder's, or ``tokenizers`` is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            f"prompts need the tokenizers package ({error}); pip install -e '.[images]'"
        ) from error
    folder = Path(folder)
    whole = folder / "tokenizer.json"
    if whole.exists():
        with files.reading(whole, most=files.SMALL) as file:
            try:
                # Its parser panics at depth, Python's says so.
                file.json()
                model = tokenizers.Tokenizer.from_str(file.text())
            except files.FileValueError as error:
                raise files.FileValueError(
                    f"{folder} holds no readable tokenizer: {error}"
                ) from None
        source = whole
    else:
        model, source = _from_parts(tokenizers, folder), folder / "vocab.json"
    known = model.get_vocab(with_added_tokens=True)
    start, end = known.get(START), known.get(END)
    if start is None or end is None:
        raise ValueError(f"{source}: the vocabulary lacks {START} or {END}")
    highest = max(known.values())
    if vocabulary is not None and highest >= vocabulary:
        raise ValueError(
            f"{source} has the identifier {highest}, beyond the {vocabulary} that the text "
            "encoder knows; the two belong to different models"
        )
    pad = _pad_token(known, folder, end)
    model.no_padding()
    model.no_truncation()
    return Tokeniser(model, length, start, end, pad)


def _from_parts(tokenizers: Any, folder: Path) -> Any:
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    for path in (vocab, merges):
        if not path.exists():
            raise ValueError(f"{folder} lacks {path.name} (or tokenizer.json)")
    vocabulary = _vocabulary(vocab)
    with files.reading(merges, most=files.SMALL) as file:
        # Only line feeds end a line: words may hold what else Unicode calls a break.
        lines = [line.rstrip("\r") for line in file.text().split("\n")]
        lines = [line for line in lines if line and not line.startswith("#v")]
        pairs = [tuple(line.split(" ")) for line in lines]
        if odd := [" ".join(pair) for pair in pairs if len(pair) != 2]:
            raise files.FileValueError(
                f"{merges}: {odd[0][:60]!r} are not two parts of a word"
            )
        model = tokenizers.Tokenizer(
            tokenizers.models.BPE(
                vocab=vocabulary,
                merges=pairs,
                end_of_word_suffix="</w>",
                continuing_subword_prefix="",
                unk_token=END,
            )
        )
    normalizers, splits = tokenizers.normalizers, tokenizers.pre_tokenizers
    spaces = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    model.normalizer = normalizers.Sequence(
        [normalizers.NFC(), spaces, normalizers.Lowercase()]
    )
    words = splits.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True)
    model.pre_tokenizer = splits.Sequence([words, splits.ByteLevel(add_prefix_space=False)])
    model.add_special_tokens([START, END])
    return model


def _vocabulary(path: Path) -> dict[str, int]:
    """A vocabulary with the two tokens that every prompt needs."""
    vocabulary = files.read_json(path)
    if not isinstance(vocabulary, dict) or not all(
        type(index) is int and 0 <= index < 2**31 for index in vocabulary.values()
    ):
        raise ValueError(f"{path} is no vocabulary: words and whole numbers")
    for token in (START, END):
        if token not in vocabulary:
            raise ValueError(f"{path}: the vocabulary lacks {token}")
    return vocabulary


def _pad_token(known: dict[str, int], folder: Path, default: int) -> int:
    """What short prompts are filled with, as the folder says."""
    told = None
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if not path.exists():
            continue
        config = files.read_json(path)
        if not isinstance(config, dict):
            raise ValueError(f"{path} holds no object")
        if config.get("tokenizer_class") not in CLASSES:
            raise ValueError(
                f"{path}: a tokenizer of class {str(config['tokenizer_class'])[:60]!r} is "
                "not supported; only CLIPTokenizer"
            )
        found = config.get("pad_token")
        token = found.get("content") if isinstance(found, dict) else found
        if token is None:
            continue
        if not isinstance(token, str) or token not in known:
            raise ValueError(
                f"{path}: pad token {str(token)[:60]!r} is not in the vocabulary"
            )
        told = known[token]
    return default if told is None else told
