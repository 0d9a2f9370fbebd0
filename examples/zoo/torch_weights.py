"""PyTorch state dictionaries as numpy arrays, without PyTorch.

A `.pth` file is a pickle of a dictionary whose tensors refer to raw storages by key. Files of both layouts
are read: the zip archive of today (`*/data.pkl` next to `*/data/<key>`), and the older stream of five
pickles (magic number, version, system, dictionary, storage keys) followed by the storages.

Unpickling may run any code that the file names. The unpickler here knows the few names that a state
dictionary needs and refuses every other.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class WeightsError(ValueError):
    """The file is not a state dictionary that can be read safely."""


class _StateDictUnpickler(pickle.Unpickler):
    """Unpickles tensors to views of numpy storages, which `read_storage` supplies or fills later."""

    def __init__(self, file: io.BytesIO, read_storage: Callable[[str, np.dtype, int], np.ndarray]):
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}
        self._read_storage = read_storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        if (module, name) not in allowed:
            raise WeightsError(f"refused to load {module}.{name}: a state dictionary has no need of it")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _device, size, *view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view not in ([], [None]):
            raise WeightsError(f"unknown kind of tensor storage: {pid!r}")
        if key not in self.storages:
            self.storages[key] = self._read_storage(key, dtype, size)
        return self.storages[key]


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    if math.prod(shape) == 0:
        return np.empty(shape, storage.dtype)
    byte_strides = [storage.itemsize * stride for stride in strides]
    # Unlike numpy's as_strided, this constructor refuses a view that leaves its buffer.
    return np.ndarray(shape, storage.dtype, storage.data, storage.itemsize * offset, byte_strides)


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a PyTorch state dictionary as a dictionary from name to numpy array.

    Raises `WeightsError` when the file is damaged, or holds anything but named tensors.
    """
    content = Path(path).read_bytes()
    read = _read_zip if zipfile.is_zipfile(io.BytesIO(content)) else _read_legacy
    try:
        state = read(content)
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle may raise almost anything
        raise WeightsError(f"{path} is not a readable PyTorch state dictionary: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise WeightsError(f"{path} holds something else than a flat dictionary of tensors")
    return {name: np.array(value, order="C") for name, value in state.items()}


def _read_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (index,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        root = index.removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise WeightsError("big-endian files are not supported")

        def read_storage(key: str, dtype: np.dtype, size: int) -> np.ndarray:
            return np.frombuffer(archive.read(f"{root}data/{key}"), dtype, count=size)

        return _StateDictUnpickler(io.BytesIO(archive.read(index)), read_storage).load()


def _read_legacy(content: bytes) -> Any:
    file = io.BytesIO(content)

    def reserve_storage(key: str, dtype: np.dtype, size: int) -> np.ndarray:
        if not 0 <= size * dtype.itemsize <= len(content):
            raise WeightsError(f"storage {key} claims to be larger than the file")
        return np.empty(size, dtype)  # filled below: in this layout the storages follow the dictionary

    def load() -> tuple[Any, dict[str, np.ndarray]]:
        unpickler = _StateDictUnpickler(file, reserve_storage)
        return unpickler.load(), unpickler.storages

    if load()[0] != _LEGACY_MAGIC:
        raise WeightsError("neither a zip archive nor an older PyTorch file")
    load()  # the version of the layout
    if not load()[0]["little_endian"]:
        raise WeightsError("big-endian files are not supported")
    state, storages = load()
    for key in load()[0]:
        (size,) = np.frombuffer(file.read(8), "<i8")
        storage = storages[key]
        storage[:] = np.frombuffer(file.read(size * storage.itemsize), storage.dtype)
    return state
