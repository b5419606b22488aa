"""Packages that not everybody needs: imported when they are used, named when they are missing."""

import importlib
from typing import Any


class MissingPackage(ImportError):
    """A package that is not installed. The message says how to install it."""


def needed(name: str, install: str) -> Any:
    """Import a package that is not among the requirements.

    Args:
        install: what `pip install` is to be given.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != name.partition(".")[0]:
            raise  # it is there, and lacks something itself
        raise MissingPackage(f"{name} is needed for this: pip install '{install}'") from error


NOTEBOOK = "sapnet-service[notebook]"
"""pandas and supervision."""
HUB = "sapnet-service[hub]"
"""huggingface_hub."""
FIFTYONE = "fiftyone"
"""It is no extra: it wants older versions of what the service needs, which the client does not."""
