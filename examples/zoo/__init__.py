"""Real models and photos for the examples: EfficientNet-Lite0 in three frameworks, read without PyTorch.

The networks are in `zoo.lite0_linen`, `zoo.lite0_nnx` and `zoo.lite0_equinox`, each with `load() -> Network`;
they are not imported here, so that an example needs only the framework it uses. Likewise `zoo.mnist_cnn` (digits),
`zoo.minilm` and `zoo.review_head` (sentences), and `zoo.dgaintel` (domain names).
"""

from .efficientnet_lite import Network, deprocess, load_weights, preprocess
from .packages import MissingPackageError
from .photos import (
    ClassNameError,
    Photo,
    PhotoError,
    bundled,
    class_names,
    find_class,
    imagenet_photos,
    open_photo,
)
from .torch_weights import WeightsError, load_state_dict

__all__ = [
    "ClassNameError",
    "MissingPackageError",
    "Network",
    "Photo",
    "PhotoError",
    "WeightsError",
    "bundled",
    "class_names",
    "deprocess",
    "find_class",
    "imagenet_photos",
    "load_state_dict",
    "load_weights",
    "open_photo",
    "preprocess",
]
