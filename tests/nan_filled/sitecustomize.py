"""Make torch fill uninitialised memory with NaN: in all Python processes that have this directory in PYTHONPATH."""

import importlib.abc
import importlib.machinery
import sys
import warnings


class AfterTorch(importlib.abc.MetaPathFinder):
    """Changes torch's settings when, and if, a process imports it."""

    def find_spec(self, name, path, target=None):
        if name != 'torch':
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def execute_and_set(module):
            execute(module)
            # torch fills memory in its deterministic mode only.
            module.use_deterministic_algorithms(True, warn_only=True)
            module.utils.deterministic.fill_uninitialized_memory = True

        spec.loader.exec_module = execute_and_set
        return spec


sys.meta_path.insert(0, AfterTorch())
warnings.filterwarnings('ignore', message='.* does not have a deterministic implementation')
