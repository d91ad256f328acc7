"""`load_dataset("savenvid")` and `load_dataset("avbench")`, after `import saven_hf`.

The datasets library has no way to register a dataset under a bare name (read in 4.0 and 5.2): names are looked up by
the one function `datasets.load.dataset_module_factory`, which is wrapped here. `import saven_hf` must not import
datasets, which takes a second, so the wrapping waits until somebody else does.

A local folder `./savenvid` wins over the name, as it does for every name in datasets.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import inspect
import logging
import os
import sys
from types import ModuleType


logger = logging.getLogger(__name__)

NAMES = ("savenvid", "avbench")
_LOAD, _INSPECT = "datasets.load", "datasets.inspect"


def register_datasets() -> None:
    """Make the names known to the datasets library, now or as soon as it is imported; once is enough."""
    if _LOAD in sys.modules:
        _wrap(sys.modules[_LOAD])
        # It binds the function by name when it is imported: both or neither, or configurations would not agree.
        if _INSPECT in sys.modules:
            sys.modules[_INSPECT].dataset_module_factory = sys.modules[_LOAD].dataset_module_factory
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported(importlib.abc.MetaPathFinder):
    """Wraps the look-up right after `datasets.load` is executed, before anything takes the function from there."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _LOAD:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            _wrap(module)

        spec.loader.exec_module = execute_and_wrap
        return spec


def _wrap(load: ModuleType) -> None:
    look_up = getattr(load, "dataset_module_factory", None)
    if getattr(look_up, "knows_saven", False):
        return
    if look_up is None or "data_dir" not in inspect.signature(look_up).parameters:
        from datasets import __version__

        logger.warning(
            f"datasets {__version__} looks names up in another way than this version of saven_hf knows: "
            f"load_dataset({NAMES[0]!r}) is not available. A folder and a Hub id work as ever."
        )
        return
    signature = inspect.signature(look_up)

    @functools.wraps(look_up)
    def dataset_module_factory(path, *arguments, **options):
        if path in NAMES and not os.path.isdir(path):
            given = signature.bind(path, *arguments, **options).arguments
            for name in ("data_files", "revision"):
                if given.get(name) is not None:
                    raise ValueError(
                        f"{path!r} is a dataset of saven_hf, which takes no {name!r}: name a folder with `data_dir`, "
                        f"or load the files themselves by their format."
                    )
            from .builder import dataset_module

            return dataset_module(path, given.get("data_dir"))
        return look_up(path, *arguments, **options)

    dataset_module_factory.knows_saven = True
    load.dataset_module_factory = dataset_module_factory
