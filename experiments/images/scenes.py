"""Pictures of 32 x 32 with captions that mean something: which animal, and where it is."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.images.animals import NAMES, Animals

SIDE = 32
COLOURS = {
    "white": (255, 255, 255),
    "red": (235, 60, 50),
    "green": (70, 205, 80),
    "blue": (80, 130, 255),
    "yellow": (245, 220, 70),
}
SIZES = {"small": 14, "large": 27}
"""Pixels of a silhouette's side."""
PLACES = {"on the left": 8, "in the middle": 16, "on the right": 24}
"""Column of the middle of a small one; large ones are in the middle."""
JITTER = 2
PLURALS = {"sheep": "sheep"}
SEEN = (
    "{count} {size} {colour} {animal} {place}",
    "there {is} {count} {size} {colour} {animal} {place}",
    "{colour} {animal}, {size}, {place}",
)
"""Phrasings of training; words in braces may be left out."""
HELD_OUT = (
    "the picture shows {count} {colour} {animal}, {size}, {place}",
    "look, {count} {animal} {place}, {size} and {colour}",
)
"""Phrasings that no training has met."""
OMITTED = 0.25
"""Share of the optional words that a caption leaves out."""


class Scene(NamedTuple):
    """What a picture shows."""

    animal: int
    """Index of ``NAMES``."""
    colour: str
    size: str
    place: str
    two: bool
    """Two small ones, on the left and on the right."""


def draw_scene(rng: np.random.Generator, animal: int) -> Scene:
    """A scene of one kind of animal."""
    two = bool(rng.random() < 0.2)
    size = "small" if two or rng.random() < 0.5 else "large"
    place = "in the middle" if two or size == "large" else str(rng.choice(list(PLACES)))
    return Scene(animal, str(rng.choice(list(COLOURS))), size, place, two)


def picture(rng: np.random.Generator, scene: Scene, silhouettes: np.ndarray) -> np.ndarray:
    """The scene with silhouettes of its animal, (32, 32, 3), 0 to 255."""
    canvas = np.zeros((SIDE, SIDE), np.float32)
    columns = (PLACES["on the left"], PLACES["on the right"])
    for column in columns if scene.two else (PLACES[scene.place],):
        side = SIZES[scene.size]
        one = Image.fromarray(silhouettes[rng.integers(len(silhouettes))])
        small = np.asarray(one.resize((side, side), Image.Resampling.BOX), np.float32)
        room = SIDE - side
        middle = np.array([SIDE // 2, column]) + rng.integers(-JITTER, JITTER + 1, 2)
        top, left = np.clip(middle - side // 2, 0, room)
        part = canvas[top : top + side, left : left + side]
        np.maximum(part, small, out=part)
    tint = np.asarray(COLOURS[scene.colour], np.float32) / 255
    return (canvas[:, :, None] * tint).round().astype(np.uint8)


def caption(rng: np.random.Generator, scene: Scene, held_out: bool = False) -> str:
    """Words for a scene; the animal is always named, everything else may be left out."""
    phrasing = str(rng.choice(HELD_OUT if held_out else SEEN))
    name = NAMES[scene.animal]
    words = {
        "animal": PLURALS.get(name, f"{name}s") if scene.two else name,
        "count": "two" if scene.two else "a",
        "is": "are" if scene.two else "is",
        "colour": scene.colour,
        "size": scene.size,
        "place": "" if scene.two else scene.place,
    }
    for optional in ("colour", "size", "place"):
        if rng.random() < OMITTED:
            words[optional] = ""
    return tidy(phrasing.format(**words))


def tidy(text: str) -> str:
    """A phrase without what its missing words leave behind."""
    parts = [" ".join(part.split()) for part in text.split(",")]
    parts = [part.removesuffix(" and").removeprefix("and ") for part in parts]
    joined = ", ".join(part for part in parts if part and part != "and")
    for vowel in ("elephant",):
        joined = joined.replace(f"a {vowel}", f"an {vowel}")
    return joined


class Scenes(NamedTuple):
    """Pictures, their captions and what they show."""

    pictures: np.ndarray
    """(count, 32, 32, 3), 0 to 255."""
    captions: list[str]
    animals: np.ndarray
    """Indices of ``NAMES``."""


def draw_scenes(animals: Animals, count: int, seed: int) -> Scenes:
    """Scenes of all kinds in equal shares, each from silhouettes that are given."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.arange(count) % len(NAMES))
    own = [animals.pictures[animals.labels == k] for k in range(len(NAMES))]
    scenes = [draw_scene(rng, int(kind)) for kind in kinds]
    pictures = np.stack([picture(rng, s, own[s.animal]) for s in scenes])
    return Scenes(pictures, [caption(rng, s) for s in scenes], kinds)
