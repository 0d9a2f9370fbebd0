"""What a stochastic method returns: a value and how far chance may have moved it."""

from typing import Any, NamedTuple


class Estimate(NamedTuple):
    """A Monte-Carlo estimate and its standard error, both with the structure of what is estimated.

    `std_error` is the estimated standard deviation of `value` over keys: about two thirds of the runs lie
    within one of it, nearly all within three. It says nothing of a bias of the method itself. With one sample
    it is NaN, since nothing is known of the spread.
    """

    value: Any
    std_error: Any
