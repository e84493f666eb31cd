"""Starts the server when its folder is run by path."""

import importlib.util
import sys
from pathlib import Path

NAME = "mlcicd_model_server"


def load_beside(folder: Path) -> None:
    """Makes the folder importable as a package of its own name, and takes it off the path of imports.

    Run by path, the folder comes first on that path, and its modules would shadow the user's.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_beside(Path(__file__).resolve().parent)
    importlib.import_module(f"{NAME}.process").main()
