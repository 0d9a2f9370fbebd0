"""What LIME perturbs beside plain arrays: the superpixels of an image, the words of a text.

And which explanations of many to look at, so that between them they show what matters (`pick_representatives`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import accumulator_dtype, check_count
from jaxplain._players import players_of


def superpixels(image: Any, *, num_segments: int = 50, compactness: float = 10.0) -> np.ndarray:
    """Groups of an image: connected patches of like colour (SLIC, through scikit-image).

    Args:
        image: (height, width, channels), or (height, width) in grey, or a volume (depth, height, width, channels);
            of any range.
        num_segments: about how many.
        compactness: how much nearness counts beside colour; high values give squares.

    Returns:
        Integers 0 to M - 1 in the image's shape without channels, for `groups=`.

    Raises:
        ValueError: the image has another number of axes, is empty, or not finite.
        TypeError: it is traced: the number of groups is a shape.
        ImportError: scikit-image is not installed.

    Example:
        >>> import numpy as np, jaxplain as jxp
        >>> image = np.zeros((8, 8, 3))
        >>> image[:, 4:] = 1.0
        >>> groups = jxp.superpixels(image, num_segments=4)
        >>> print(groups.shape, groups.min(), np.unique(groups[:, :4][groups[:, :4] == groups[0, 7]]))
        (8, 8) 0 []

    When not to trust it: what is explained is the patches' outlines as much as the network; try other numbers.

    Source: Achanta et al. 2012.
    """
    try:
        pixels = np.asarray(image, np.float64)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            "superpixels counts patches in the image itself: call it outside of jit and vmap"
        ) from error
    if pixels.ndim not in (2, 3, 4) or not pixels.size or not np.isfinite(pixels).all():
        raise ValueError(
            f"image must be finite and (height, width, channels), (height, width) in grey, or a volume with "
            f"channels; it has shape {pixels.shape}"
        )
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError("superpixels needs scikit-image: pip install 'jaxplain[image]'") from error
    low, high = pixels.min(), pixels.max()
    found = slic(
        (pixels - low) / (high - low or 1),
        n_segments=check_count("num_segments", num_segments),
        compactness=compactness,
        channel_axis=None if pixels.ndim == 2 else -1,
        start_label=0,
    )
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def mean_within(groups: Any) -> Callable[[Any], Any]:
    """A baseline: each group's own mean, channel by channel, as lime paints a superpixel that is off.

    Args:
        groups: as in `lime` and `ablation`.

    Returns:
        A callable `x -> baseline`.

    Example:
        >>> import jax.numpy as jnp, numpy as np, jaxplain as jxp
        >>> print(jxp.mean_within(np.array([0, 0, 1]))(jnp.array([[1.0, 0], [3, 4], [5, 5]])))
        [[2. 2.]
         [2. 2.]
         [5. 5.]]

    When not to trust it: a patch of even colour is its own mean, so it is never away and gets no weight.

    Source: Ribeiro et al. 2016, their package lime (`hide_color=None`).
    """

    def baseline(x):
        players_of(groups, x)  # checks
        structure = jax.tree.structure(x)

        def fill(numbers, leaf):
            label = np.asarray(numbers)
            flat = leaf.reshape(label.size, -1).astype(accumulator_dtype(leaf.dtype))
            index, count = label.ravel(), int(label.max()) + 1
            sizes = np.maximum(np.bincount(index, minlength=count), 1)
            sums = jax.ops.segment_sum(flat, index, num_segments=count)
            means = sums / jnp.asarray(sizes, flat.dtype)[:, None]
            return means[index].reshape(leaf.shape).astype(leaf.dtype)

        pairs = zip(structure.flatten_up_to(groups), jax.tree.leaves(x), strict=True)
        return jax.tree.unflatten(structure, [fill(*pair) for pair in pairs])

    return baseline


class Words(NamedTuple):
    """A text's words as parts to take away.

    Attributes:
        tokens: its words in their order.
        names: what each part is called.
        groups: (len(tokens),): the part that each token belongs to.
    """

    tokens: tuple[str, ...]
    names: tuple[str, ...]
    groups: np.ndarray

    def counts(self, vocabulary: Mapping[str, int]) -> np.ndarray:
        """(M, columns): what each part adds to a bag of words, so that f(z) = model(z @ counts) explains one.

        Args:
            vocabulary: the column of each word, as `CountVectorizer.vocabulary_`; words that it lacks add nothing.
        """
        bag = np.zeros((len(self.names), max(vocabulary.values(), default=-1) + 1), np.float32)
        for token, part in zip(self.tokens, self.groups, strict=True):
            if token in vocabulary:
                bag[part, vocabulary[token]] += 1
        return bag


def words(text: str, *, pattern: str = r"\w+", lower: bool = False, distinct: bool = True) -> Words:
    r"""The words of a text, for LIME: parts that are taken away together.

    For a network on word vectors, (tokens, features): `lime(f, groups=words(text).groups)`. For a bag of words:
    `lime(lambda z: model(z @ counts))(key, jnp.ones(len(names)))` with `counts = words(text).counts(vocabulary)`.

    Args:
        text: the text.
        pattern: a regular expression for a word.
        lower: whether to turn the words to lower case.
        distinct: whether all occurrences of a word are one part (True), or each its own.

    Returns:
        `Words(tokens, names, groups)`.

    Raises:
        ValueError: there is no word.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> found = jxp.words("good, good but long")
        >>> print(found.names, found.groups)
        ('good', 'but', 'long') [0 0 1 2]
        >>> counts = found.counts({"good": 0, "long": 1})
        >>> fit = jxp.lime(lambda z: z @ counts @ jnp.array([1.0, -1.0]))(jax.random.key(0), jnp.ones(3))
        >>> print((fit.value + 0.0).round(1) + 0.0)
        [ 2.  0. -1.]

    When not to trust it: a text without a word is no text that was ever written; and taking all occurrences away
    hides that one was enough.

    Source: Ribeiro et al. 2016, section 3.1.
    """
    tokens = tuple(found.group() for found in re.finditer(pattern, text.lower() if lower else text))
    if not tokens:
        raise ValueError(f"no word ({pattern}) in {text[:40]!r}")
    if not distinct:
        return Words(tokens, tokens, np.arange(len(tokens)))
    names = tuple(dict.fromkeys(tokens))
    number = {name: i for i, name in enumerate(names)}
    return Words(tokens, names, np.array([number[token] for token in tokens]))


def pick_representatives(importances: Any, budget: int) -> jax.Array:
    r"""SP-LIME: a few of many explanations that between them show the features that matter.

    A feature matters by $I_j = \sqrt{\sum_i |W_{ij}|}$; a choice covers the features that any of its rows uses.
    Greedily the row that adds most: since coverage is submodular, within 1 - 1/e of the best choice.

    Args:
        importances: (examples, features), one explanation a row.
        budget: how many to choose.

    Returns:
        (budget,) indices of rows, in the order of choice; all -1 if an importance is NaN.

    Raises:
        ValueError: `importances` is not a table, or the budget is not between 1 and the number of rows.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> print(jxp.pick_representatives(jnp.array([[1.0, 0, 0], [2, 1, 0], [0, 0, 1]]), 2))
        [1 2]

    When not to trust it: a weight that is noise counts as use; keep few features a row (`num_features`), or set
    weights within their standard error to 0.

    Source: Ribeiro et al. 2016, algorithm 2; Nemhauser et al. 1978 for the guarantee.
    """
    table = jnp.asarray(importances)
    if table.ndim != 2:
        raise ValueError(f"importances must be (examples, features), not of shape {table.shape}")
    if check_count("budget", budget) > len(table):
        raise ValueError(f"budget={budget}, but there are only {len(table)} rows")
    used = table != 0
    worth = jnp.sqrt(jnp.abs(table).sum(0))

    def step(state, _):
        covered, taken = state
        gain = jnp.where(used & ~covered[None], worth[None], 0).sum(1)
        best = jnp.argmax(jnp.where(taken, -1, gain))
        return (covered | used[best], taken.at[best].set(True)), best

    none = jnp.isnan(worth) & False, jnp.isnan(table[:, 0]) & False
    _, order = jax.lax.scan(step, none, None, length=budget)
    return jnp.where(jnp.isnan(table).any(), -1, order)
