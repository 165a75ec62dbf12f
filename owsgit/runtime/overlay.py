"""Layers, laid over each other in one folder as Lambda does it at /opt: of two files in one place, the later stays."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from owsgit.runtime import code


def merge(layers: Iterable[Path], target: Path) -> None:
    """Have all that is in `layers` in `target`, by hard links where the file system has them."""
    for layer in layers:
        for folder, folders, names in os.walk(layer):
            place = target / Path(folder).relative_to(layer)
            for name in folders:
                source, path = Path(folder, name), place / name
                if source.is_symlink():
                    _put(source, path)
                elif path.is_symlink() or not path.is_dir():
                    code.remove(path)
                    path.mkdir()
            for name in names:
                _put(Path(folder, name), place / name)


def _put(source: Path, path: Path) -> None:
    code.remove(path)
    if source.is_symlink():
        path.symlink_to(source.readlink())
        return
    try:
        path.hardlink_to(source)
    except OSError:  # another file system, or too many links
        shutil.copy2(source, path)
