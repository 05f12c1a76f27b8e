"""Writes parameters to a safetensors file, as the weight plugins beside this file do.

Not a plugin.  A file is complete or not there: it is written under another name in the same folder, then renamed.
"""

import json
import os
from typing import Mapping

import numpy as np
from safetensors.numpy import save


def check_path(path: str) -> str:
    """`path` if it lies within the run's directory, to which it is relative; ValueError otherwise."""
    inside = os.path.normpath(path)
    if not path or os.path.isabs(inside) or inside.split(os.sep)[0] in (os.pardir, os.curdir):
        raise ValueError(f'path must name a file within the run\'s directory, not "{path}"')
    return path


def write(path: str, weights: Mapping[str, np.ndarray], **facts: object) -> None:
    """`facts` are told in the file's metadata, as JSON under "bulkhead".  Equal arguments give equal bytes.

    OSError when the disk is full or not writable; the file is then what it was before.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # One entry: the library writes several in an order that changes from process to process.
    about = {"bulkhead": json.dumps(facts)}
    data = save({name: np.ascontiguousarray(array) for name, array in weights.items()}, about)
    part = f"{path}.part"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        if os.path.exists(part):
            os.remove(part)
        raise
