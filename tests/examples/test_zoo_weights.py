"""The reader of PyTorch's weight files, on files written here as PyTorch writes them."""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
import zoo


class _Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


class _Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments  # type: ignore


class _Pickler(pickle.Pickler):
    def __init__(self, file, *more):
        super().__init__(file, protocol=2)
        self.more = more  # the older layout appends the view of the storage, None

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        return ("storage", sys.modules["torch"].FloatStorage, obj.key, "cpu", len(obj.values), *self.more)


@pytest.fixture
def fake_torch(monkeypatch):
    """Modules that let pickle write PyTorch's names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})  # type: ignore

    def _rebuild_tensor_v2():
        raise NotImplementedError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def _write_zip(path, state, storages):
    data = io.BytesIO()
    _Pickler(data).dump(state)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", data.getvalue())
        archive.writestr("model/byteorder", "little")
        for storage in storages:
            archive.writestr(f"model/data/{storage.key}", storage.values.tobytes())


def _write_legacy(path, state, storages):
    with path.open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(header, file, protocol=2)
        _Pickler(file, None).dump(state)
        pickle.dump([storage.key for storage in storages], file, protocol=2)
        for storage in storages:
            file.write(struct.pack("<q", len(storage.values)) + storage.values.tobytes())


LAYOUTS = pytest.mark.parametrize("write", [_write_zip, _write_legacy])


@LAYOUTS
@pytest.mark.usefixtures("fake_torch")
def test_state_dict_round_trip(tmp_path, write):
    values = np.arange(12, dtype=np.float32)
    shared, scalar = _Storage("7", values), _Storage("8", np.array([5.0], np.float32))
    state = {
        "plain": _Tensor(shared, 0, (3, 4), (4, 1)),
        "transposed": _Tensor(shared, 0, (4, 3), (1, 4)),
        "part": _Tensor(shared, 5, (2,), (1,)),
        "scalar": _Tensor(scalar, 0, (), ()),
        "empty": _Tensor(shared, 0, (0, 2), (2, 1)),
    }
    write(tmp_path / "w.pth", state, [shared, scalar])
    read = zoo.load_state_dict(tmp_path / "w.pth")
    expected = {
        "plain": values.reshape(3, 4),
        "transposed": values.reshape(3, 4).T,
        "part": values[5:7],
        "scalar": np.float32(5.0),
        "empty": np.zeros((0, 2), np.float32),
    }
    assert read.keys() == expected.keys()
    for name, array in read.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)
        assert array.flags.writeable
        assert array.flags.c_contiguous


class _Attack:
    def __reduce__(self):
        return os.system, ("echo never run",)


@LAYOUTS
def test_a_forbidden_global_is_refused(tmp_path, write, capfd):
    write(tmp_path / "w.pth", {"weight": _Attack()}, [])
    with pytest.raises(zoo.WeightsError, match=r"refused to load (posix|nt)\.system"):
        zoo.load_state_dict(tmp_path / "w.pth")
    assert capfd.readouterr().out == ""


@LAYOUTS
@pytest.mark.usefixtures("fake_torch")
@pytest.mark.parametrize("view", [(0, (4, 4), (4, 1)), (10, (3,), (1,)), (-1, (2,), (1,)), (0, (3,), (-1,))])
def test_a_tensor_outside_its_storage_is_refused(tmp_path, write, view):
    storage = _Storage("0", np.arange(12, dtype=np.float32))
    write(tmp_path / "w.pth", {"weight": _Tensor(storage, *view)}, [storage])
    with pytest.raises(zoo.WeightsError):
        zoo.load_state_dict(tmp_path / "w.pth")


@LAYOUTS
def test_other_contents_are_refused(tmp_path, write):
    write(tmp_path / "w.pth", {"epoch": 3}, [])
    with pytest.raises(zoo.WeightsError, match="something else"):
        zoo.load_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"", b"no weights at all", pickle.dumps(3)])
def test_damaged_weights_are_refused(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(zoo.WeightsError):
        zoo.load_state_dict(tmp_path / "w.pth")
