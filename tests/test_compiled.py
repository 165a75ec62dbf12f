"""What every request passes is compiled where it can be."""

import sysconfig
from importlib import import_module
from pathlib import Path

import pytest

import hatch_build


@pytest.mark.skipif(bool(hatch_build.what_is_missing()), reason="nothing can be compiled here")
@pytest.mark.parametrize("module", hatch_build.modules(Path(hatch_build.__file__).parent), ids=lambda path: path.stem)
def test_what_is_named_is_compiled(module: Path) -> None:
    name = ".".join(module.relative_to(Path(hatch_build.__file__).parent).with_suffix("").parts)
    file = import_module(name).__file__
    assert file is not None and file.endswith(sysconfig.get_config_var("EXT_SUFFIX"))
