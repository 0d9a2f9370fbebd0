"""The rules of affine units, as users make them; `messages.py` computes them."""

from typing import Any

from jaxplain.rules.messages import AlphaBeta, Bias, Epsilon, Flat, Gamma, Passing, WSquare, ZBox, ZPlus


def epsilon(eps: Any = 1e-6, *, bias: Bias = "share") -> Epsilon:
    r"""The epsilon rule; with eps = 0, LRP-0.

    $R_i = \sum_j \frac{x_i w_{ij}}{z_j + \epsilon\,\mathrm{sign} z_j} R_j$, with $z_j = \sum_i x_i w_{ij} + b_j$.

    Args:
        eps: the stabiliser, in the units of z.
        bias: "share": b stands in z and keeps its share; "ignore": it does not.

    Returns:
        A rule for `lrp` or `rules_for`. Its numbers may be traced.

    Raises:
        ValueError: `bias` is neither.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jnp.array([2.0, -1.0]) @ x + 3.0
        >>> jxp.lrp(f, jxp.rules.epsilon(0.0))(jnp.array([1.0, 1.0]))  # the bias keeps 3 of 4
        Array([ 2., -1.], dtype=float32)

    Source: Bach et al. 2015, eq. 58; Montavon et al. 2019, section 10.2.1.
    """
    return Epsilon(eps, checked(bias))


def gamma(g: Any = 0.25, *, eps: Any = 1e-6, bias: Bias = "share") -> Gamma:
    r"""The gamma rule, in the form that serves inputs of both signs.

    Where $z_j > 0$ contributions $c_{ij} = x_i w_{ij}$ count as $c_{ij} + \gamma c_{ij}^+$, where $z_j < 0$ as
    $c_{ij} + \gamma c_{ij}^-$, and so does the bias. For $x \ge 0$ that is the simple rule with
    $w + \gamma w^+$.

    Args:
        g: how much more the contributions with the sign of z count.
        eps: the stabiliser, in the units of z.
        bias: "share" or "ignore".

    Returns:
        A rule for `lrp` or `rules_for`. Its numbers may be traced: gamma can be mapped over or fitted.

    Raises:
        ValueError: `bias` is neither.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jnp.array([3.0, -1.0]) @ x
        >>> jax.vmap(lambda g: jxp.lrp(f, jxp.rules.gamma(g, eps=0.0))(jnp.ones(2)))(jnp.array([0.0, 1.0]))
        Array([[ 3. , -1. ],
               [ 2.4, -0.4]], dtype=float32)

    Source: Montavon et al. 2019, section 10.2.2; Andeol et al. 2021 for inputs of both signs.
    """
    return Gamma(g, eps, checked(bias))


def alpha_beta(alpha: Any = 2.0, beta: Any = 1.0, *, eps: Any = 1e-6, bias: Bias = "share") -> AlphaBeta:
    r"""The alpha-beta rule on signed contributions.

    $R_i = \sum_j \left(\alpha \frac{c_{ij}^+}{\sum_i c_{ij}^+ + b_j^+} -
    \beta \frac{c_{ij}^-}{\sum_i c_{ij}^- + b_j^-}\right) R_j$, with $c_{ij} = x_i w_{ij}$.

    Args:
        alpha: the weight of what speaks for; relevance is conserved if alpha - beta = 1.
        beta: the weight of what speaks against.
        eps: the stabiliser, in the units of z.
        bias: "share" or "ignore".

    Returns:
        A rule for `lrp` or `rules_for`. Its numbers may be traced.

    Raises:
        ValueError: `bias` is neither.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jnp.array([3.0, 1.0, -1.0]) @ x
        >>> jxp.lrp(f, jxp.rules.alpha_beta(2.0, 1.0, eps=0.0))(jnp.ones(3))
        Array([ 4.5,  1.5, -3. ], dtype=float32)

    Source: Bach et al. 2015, eq. 60.
    """
    return AlphaBeta(alpha, beta, eps, checked(bias))


def z_plus(*, eps: Any = 1e-6, bias: Bias = "share") -> ZPlus:
    r"""The z+ rule: positive contributions only.

    $R_i = \sum_j \frac{c_{ij}^+}{\sum_i c_{ij}^+ + b_j^+} R_j$, with $c_{ij} = x_i w_{ij}$.

    Args:
        eps: the stabiliser, in the units of z.
        bias: "share" or "ignore"; ignoring it makes this excitation backprop.

    Returns:
        A rule for `lrp` or `rules_for`.

    Raises:
        ValueError: `bias` is neither.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jnp.array([3.0, 1.0, -1.0]) @ x
        >>> jxp.lrp(f, jxp.rules.z_plus(eps=0.0))(jnp.ones(3))
        Array([2.25, 0.75, 0.  ], dtype=float32)

    Source: Montavon et al. 2017, eq. 13; Zhang et al. 2016, eq. 8.
    """
    return ZPlus(eps, checked(bias))


def z_box(low: Any, high: Any, *, eps: Any = 1e-6) -> ZBox:
    r"""The z-box rule, for an input that lies between known bounds (pixels).

    $R_i = \sum_j \frac{x_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}{\sum_i (\ldots)} R_j$.

    Args:
        low: the lower bound of the unit's inputs, a number or an array of their shape.
        high: the upper bound.
        eps: the stabiliser, in the units of z.

    Returns:
        A rule for `lrp` or `rules_for`.

    Raises:
        ValueError: a bound does not fit the input (when the explanation is computed).

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jnp.array([2.0, -1.0]) @ x
        >>> jxp.lrp(f, jxp.rules.z_box(0.0, 1.0, eps=0.0))(jnp.array([1.0, 0.5]))
        Array([1.2, 0.3], dtype=float32)

    Source: Montavon et al. 2017, eq. 14.
    """
    return ZBox(low, high, eps)


def w_square(*, eps: Any = 1e-6, bias: Bias = "share") -> WSquare:
    r"""The w^2 rule: by the weights alone, whatever the input.

    $R_i = \sum_j \frac{w_{ij}^2}{\sum_i w_{ij}^2 + b_j^2} R_j$.

    Args:
        eps: the stabiliser, in the units of squared weights.
        bias: "share": $b^2$ stands in the denominator; "ignore": it does not.

    Returns:
        A rule for `lrp` or `rules_for`.

    Raises:
        ValueError: `bias` is neither.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> jxp.lrp(lambda x: jnp.array([2.0, -1.0]) @ x, jxp.rules.w_square(eps=0.0))(jnp.array([1.0, -3.0]))
        Array([4., 1.], dtype=float32)

    Source: Montavon et al. 2017, eq. 12.
    """
    return WSquare(eps, checked(bias))


def flat(*, eps: Any = 1e-6) -> Flat:
    r"""The flat rule: the same to every input that a unit reads.

    $R_i = \sum_j \frac{1}{\sum_i 1} R_j$; biases take nothing.

    Args:
        eps: the stabiliser of the count.

    Returns:
        A rule for `lrp` or `rules_for`.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> jxp.lrp(lambda x: jnp.array([2.0, -1.0]) @ x, jxp.rules.flat(eps=0.0))(jnp.array([1.0, -3.0]))
        Array([2.5, 2.5], dtype=float32)

    Source: Bach et al. 2016; Lapuschkin et al. 2019.
    """
    return Flat(eps)


def passing() -> Passing:
    """The identity: a unit's input receives what its output received.

    Returns:
        A rule for `lrp` or `rules_for`, for units whose input and output have the same shape.

    Raises:
        ValueError: they have not (when the explanation is computed).

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: (jnp.array([[0.0, 1.0], [1.0, 0.0]]) @ x)[0]
        >>> jxp.lrp(f, jxp.rules.passing())(jnp.array([1.0, 3.0]))
        Array([3., 0.], dtype=float32)
    """
    return Passing()


def checked(bias: str) -> Any:
    """`bias` if it is one of the two words."""
    if bias not in ("share", "ignore"):
        raise ValueError(f"bias={bias!r}: it is 'share' (it keeps its share of relevance) or 'ignore'")
    return bias
