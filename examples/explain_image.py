"""What did EfficientNet-Lite0 see in a photo? Explains photos with many methods; writes a gallery and a report.

Usage:
    python examples/explain_image.py                          # photos that come with the packages
    python examples/explain_image.py cat.jpg --class tabby    # your own; why not another class?
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import zoo
from explain_methods import METHODS, Explanation, Method, checker, explainer
from explain_report import Run, Subject, draw_gallery, show_runs, show_top, write_report
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import jaxplain as jxp

BUNDLED = ("coffee", "chelsea")
IMAGENET = (14,)  # among zoo.imagenet_photos()
BACKGROUND = ("astronaut", "rocket", "hubble_deep_field", "brick", "grass", "gravel", "retina", "ihc")
WORKERS = min(2, os.cpu_count() or 1)  # photos at once: one alone leaves a second core idle


class UserError(ValueError):
    """Something the user can put right; the message is one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse(argv: Sequence[str] | None) -> tuple[Parser, argparse.Namespace]:
    parser = Parser(prog="explain_image.py", description="Explain what EfficientNet-Lite0 saw in photos.")
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="image files (default: three bundled photos)")
    parser.add_argument(
        "--class",
        dest="label",
        metavar="CLASS",
        help="name or index of the class to explain (default: the network's first choice for each photo)",
    )
    parser.add_argument("--framework", choices=["linen", "nnx", "equinox"], default="linen")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="where to write (default: out)"
    )
    return parser, parser.parse_args(argv)


def open_photos(paths: Sequence[str]) -> list[tuple[str, Image.Image]]:
    """The photos named on the command line, or the default ones, each with a name to print."""
    if paths:
        return [(Path(path).name, zoo.open_photo(path)) for path in paths]
    labelled = zoo.imagenet_photos()
    return [(name, zoo.bundled(name)) for name in BUNDLED] + [
        (zoo.class_names()[labelled[i].label], labelled[i].image) for i in IMAGENET
    ]


def classify(
    photos: Sequence[tuple[str, Image.Image]], logits: Callable[[Any], jax.Array], label: int | None
) -> list[Subject]:
    """Asks the network for its five first choices; without a label, the first one is to be explained."""
    names, subjects = zoo.class_names(), []
    for name, image in photos:
        x = zoo.preprocess(image)
        probabilities = np.asarray(jax.nn.softmax(logits(x)))
        best = np.argsort(-probabilities)[:5]
        top = [(names[i], float(probabilities[i])) for i in best]
        subjects.append(Subject(name, x, int(best[0]) if label is None else label, top))
    return subjects


def run_method(
    method: Method,
    f: Callable[..., jax.Array],
    background: jax.Array,
    check: Callable[..., tuple[Any, Any]],
    subjects: Sequence[Subject],
) -> Run:
    """Compiles a method once, applies it to all photos, and checks what it promises."""
    parts = [() if method.parts is None else (jnp.asarray(method.parts(s.x)),) for s in subjects]
    cases = [
        (jax.random.key(0), jnp.asarray(s.x), jnp.int32(s.label), *more)
        for s, more in zip(subjects, parts, strict=True)
    ]
    start = time.perf_counter()
    compiled = jax.jit(explainer(method, f, background)).lower(*cases[0]).compile()
    middle = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(lambda case: jax.block_until_ready(compiled(*case)), cases))
    end = time.perf_counter()
    explanations = [
        Explanation(value, *check(method, value, x, label), error)
        for (value, error), (_, x, label, *_parts) in zip(results, cases, strict=True)
    ]
    return Run(method, middle - start, end - middle, jax.device_get(explanations))


def run_all(
    methods: Sequence[Method],
    f: Callable[..., jax.Array],
    background: jax.Array,
    subjects: Sequence[Subject],
    console: Console,
) -> list[Run]:
    """Runs every method on every photo behind a progress bar."""
    columns = (
        TextColumn("{task.description:<30}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    check, runs = checker(f), []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(methods))
        for method in methods:
            progress.update(task, description=method.name)
            runs.append(run_method(method, f, background, check, subjects))
            progress.advance(task)
        progress.update(task, description="done")
    return runs


def explain(args: argparse.Namespace, methods: Sequence[Method], console: Console) -> list[Path]:
    """Does what the arguments ask for; returns the files written."""
    label = None if args.label is None else zoo.find_class(args.label)
    photos = open_photos(args.photos)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {args.out}: {error.strerror}") from error
    network = importlib.import_module(f"zoo.lite0_{args.framework}").load()
    logits = jax.jit(network.logits)  # traced once, for all methods
    f = jxp.class_score(logits)
    subjects = classify(photos, logits, label)
    show_top(subjects, console)
    background = jnp.stack([zoo.preprocess(zoo.bundled(name)) for name in BACKGROUND])
    runs = run_all(methods, f, background, subjects, console)
    show_runs(runs, subjects, console)
    gallery, report = args.out / "gallery.png", args.out / "report.html"
    draw_gallery(runs, subjects).save(gallery)
    report.write_text(write_report(runs, subjects, args.framework), encoding="utf-8")
    return [gallery, report]


def main(argv: Sequence[str] | None = None, methods: Sequence[Method] = METHODS) -> int:
    """Runs the demonstration; errors of the user are one line on stderr and exit code 2."""
    start = time.perf_counter()
    parser, args = parse(argv)
    console = Console()
    try:
        written = explain(args, methods, console)
    except (zoo.PhotoError, zoo.ClassNameError, zoo.WeightsError, UserError, ImportError) as error:
        parser.error(str(error))
    console.print(f"\n{time.perf_counter() - start:.0f} s in all; wrote:", highlight=False)
    for path in written:
        print(os.path.relpath(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
