"""Attribution and influence for any JAX function, as pure function transforms."""

from jaxplain._estimate import Estimate
from jaxplain.attribution import *  # noqa: F403
from jaxplain.quantities import class_contrast, class_score, log_probability, margin
