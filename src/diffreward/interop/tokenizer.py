"""CLIP's tokenizer from its files, through the ``tokenizers`` package."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What CLIP takes for a word."""
START, END = "<|startoftext|>", "<|endoftext|>"


def load_tokenizer(
    folder: str | Path, length: int
) -> Callable[[Sequence[str]], np.ndarray]:
    """Reads ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.

    Args:
        folder: of the tokenizer.
        length: identifiers per prompt: longer prompts are cut, shorter ones padded.

    Returns:
        A function of prompts to identifiers (count, length).

    Raises:
        ValueError: if a file is missing or damaged, or ``tokenizers`` is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            f"prompts need the tokenizers package ({error}); pip install -e '.[images]'"
        ) from error
    folder = Path(folder)
    whole = folder / "tokenizer.json"
    try:
        if whole.exists():
            model = tokenizers.Tokenizer.from_file(str(whole))
        else:
            model = _from_parts(tokenizers, folder)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - the package raises bare exceptions
        raise ValueError(f"{folder} holds no readable tokenizer: {error}") from error
    start, end = (model.token_to_id(token) for token in (START, END))
    if start is None or end is None:
        raise ValueError(f"{whole}: the vocabulary lacks {START} or {END}")
    pad = _pad_token(model, folder, end)
    model.no_padding()
    model.no_truncation()

    def tokenise(prompts: Sequence[str]) -> np.ndarray:
        ids = np.full((len(prompts), length), pad, np.int32)
        for row, prompt in zip(ids, prompts, strict=True):
            words = model.encode(prompt, add_special_tokens=False).ids[: length - 2]
            row[: len(words) + 2] = [start, *words, end]
        return ids

    return tokenise


def _from_parts(tokenizers: Any, folder: Path) -> Any:
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    for path in (vocab, merges):
        if not path.exists():
            raise ValueError(f"{folder} lacks {path.name} (or tokenizer.json)")
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#v")]
    model = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab=_vocabulary(vocab),
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
    vocabulary = json.loads(path.read_text(encoding="utf-8"))
    for token in (START, END):
        if token not in vocabulary:
            raise ValueError(f"{path}: the vocabulary lacks {token}")
    return vocabulary


def _pad_token(model: Any, folder: Path, default: int) -> int:
    """What short prompts are filled with, as the folder says."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if not path.exists():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8")).get("pad_token")
        except (json.JSONDecodeError, AttributeError) as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        token = found.get("content") if isinstance(found, dict) else found
        if token is not None:
            index = model.token_to_id(token)
            if index is None:
                raise ValueError(f"{path}: pad token {token!r} is not in the vocabulary")
            return index
    return default
