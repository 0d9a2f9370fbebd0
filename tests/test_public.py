"""The public surface: what is listed exists, is documented as promised, and nothing private leaks in."""

import inspect
import re
from pathlib import Path

import pytest

import jaxplain
import jaxplain.attribution
import jaxplain.engine
import jaxplain.interior
import jaxplain.interop
import jaxplain.metrics
import jaxplain.rules
import jaxplain.shapley
import jaxplain.training

MODULES = [jaxplain, jaxplain.attribution, jaxplain.engine, jaxplain.interior, jaxplain.interop, jaxplain.metrics]
MODULES += [jaxplain.rules, jaxplain.shapley, jaxplain.training]
SOURCES = sorted(Path(jaxplain.__file__).parent.rglob("*.py"))
FUNCTIONS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES[1:]
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_all_lists_what_exists_sorted(module):
    constants_first = lambda name: (not name.isupper(), not name[0].isupper(), name)
    assert module.__all__ == sorted(module.__all__, key=constants_first)
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_root_holds_what_its_packages_list():
    for package in (jaxplain.attribution, jaxplain.engine):
        extension = {"register_unit", "unit"}  # for those who extend the engine
        assert set(package.__all__) - extension <= set(jaxplain.__all__)


@pytest.mark.parametrize(
    "function", [f for n, f in FUNCTIONS.items() if not n.endswith(".tag")], ids=lambda f: f.__name__
)
def test_docstrings_have_every_part(function):
    doc = inspect.getdoc(function)
    first, rest = doc.split("\n", 1)
    assert first.endswith(".")
    assert rest.startswith("\n")
    for part in ("Args:", "Returns:", "Example:", ">>> "):
        assert part in doc or (part == "Args:" and not inspect.signature(function).parameters), part
    families = ("attribution", "shapley", "interior")
    explains = any(name in function.__module__ for name in families) and "baselines" not in function.__module__
    if explains and function.__name__ not in ("taylor_remainder", "num_players"):
        assert "When not to trust it:" in doc
        assert re.search(r"Source: \S", doc)
    for name in inspect.signature(function).parameters:
        assert re.search(rf"^    \*?{name}: ", doc, re.M), name


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_no_private_jax_and_no_long_files(source):
    text = source.read_text()
    assert not re.search(r"jax\._src|jax\.interpreters", text)
    if source.name != "_jax.py":
        assert "jax.extend" not in text
        assert "__version__" not in text or source.name == "__init__.py"
    assert text.count("\n") <= 400


def test_engine_knows_no_method_and_methods_know_no_plots():
    root = Path(jaxplain.__file__).parent
    for folder, forbidden in {
        "engine": "attribution|interior|metrics|plot",
        "attribution": "interior|metrics|plot",
        "interior": "plot",
    }.items():
        for source in (root / folder).glob("*.py"):
            assert not re.search(rf"from jaxplain\.({forbidden})", source.read_text()), source
