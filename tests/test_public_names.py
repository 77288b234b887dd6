"""The names of `resight`: the same objects whatever was imported before, and never a module."""

import subprocess
import sys

import pytest

import resight

ORDERS = ("names first", "modules first")
CHECK = """
import importlib, inspect, os, pkgutil, sys, types, warnings
import matplotlib.pyplot, numba, timm, torch  # once for all orders: only the order of ours matters

for order in sys.argv[1:]:
    child = os.fork()
    if not child:
        break
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
if child:
    sys.exit()
import resight

warnings.simplefilter("ignore")

def import_all():
    for module in pkgutil.walk_packages(resight.__path__, "resight."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

def names():
    return {name: getattr(resight, name) for name in resight.__all__}

if order == "names first":
    first, again = names(), names()
    import_all()
else:
    import_all()
    first, again = names(), names()
last = names()
for name in resight.__all__:
    assert first[name] is again[name] is last[name], name
    assert isinstance(last[name], types.ModuleType) == (name == "recipes"), name
    if name != "recipes":
        assert last[name].__name__ == name, name
assert last["recipes"].__name__ == "resight.config.recipes"
assert not set(resight.__all__) & {m.name for m in pkgutil.iter_modules(resight.__path__)}
functions = {name for name, value in last.items() if inspect.isfunction(value)}
assert functions == {name for name in resight.__all__ if name[0].islower()} - {"recipes"}, functions
print("checked", len(first))
"""


@pytest.mark.slow
def test_names_do_not_depend_on_what_was_imported():
    """Each order in a process of its own."""
    process = subprocess.run([sys.executable, "-c", CHECK, *ORDERS], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [f"checked {len(resight.__all__)}"] * len(ORDERS)


def test_dir_lists_the_public_names():
    assert set(resight.__all__) <= set(dir(resight))
    assert "__version__" in dir(resight)
    assert sorted(resight.__all__) == sorted(resight._MODULES)
    assert len(set(resight.__all__)) == len(resight.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'resight' has no attribute 'evaluat'"):
        resight.evaluat  # noqa: B018
    with pytest.raises(ImportError):
        from resight import evaluat  # noqa: F401


def test_the_errors_have_one_base():
    errors = [getattr(resight, name) for name in resight.__all__ if name.endswith("Error")]
    assert len(errors) == 10
    assert all(issubclass(error, resight.ResightError) for error in errors)
