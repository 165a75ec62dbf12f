"""Compiles what every request passes, by mypyc, if there is a C compiler. Without one it is interpreted, and slower.

The modules are named in pyproject.toml, `[tool.hatch.build.hooks.custom]`. What is made of a module lies beside it and
is imported in its place. Wheels have it by hatchling's build hook; `make setup` runs this as a program, which does
something only if a module has changed (`--pure` takes away what was compiled).
"""

import contextlib
import io
import os
import shutil
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # then this is no build
    BuildHookInterface = object  # type: ignore[assignment,misc]

GROUP = "owsgit"
"""They are one library, beside the package, so that they know each other's insides."""

SCRATCH = ".mypyc"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
PARALLEL = 2


class CustomBuildHook(BuildHookInterface):
    """Hatchling's way in: https://hatch.pypa.io/latest/plugins/build-hook/custom/"""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if version == "editable":  # who has a checkout has `make setup`
            return
        if missing := what_is_missing():
            self.app.display_warning(f"{missing}: owsgit is interpreted")
            return
        compile_all(root, modules(root))
        build_data["pure_python"], build_data["infer_tag"] = False, True
        build_data["artifacts"] += [str(made_of(each).relative_to(root)) for each in modules(root)]
        library = f"{GROUP}__mypyc{SUFFIX}"
        build_data["force_include"][str(root / library)] = library


def what_is_missing() -> str:
    """What it takes to compile and is not here; empty if all is."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        return "there is no C compiler (Debian: gcc and libc6-dev)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "there are no headers of Python (Debian: python3-dev)"
    try:
        import mypyc.build  # noqa: F401, PLC0415 - where it is not there, nothing else depends on it
    except ImportError:
        return "mypy is not installed"
    return ""


def modules(root: Path) -> list[Path]:
    """Those that are to be compiled."""
    with (root / "pyproject.toml").open("rb") as file:
        named = tomllib.load(file)["tool"]["hatch"]["build"]["hooks"]["custom"]["modules"]
    return [root / each for each in named]


def made_of(module: Path) -> Path:
    """What is imported in the place of a module that was compiled."""
    return module.with_suffix(SUFFIX)


def is_fresh(sources: list[Path]) -> bool:
    """Whether what was compiled is what would be compiled now."""
    about = [Path(__file__), Path(__file__).with_name("pyproject.toml")]
    newest = max(each.stat().st_mtime for each in [*sources, *about])
    return all(made_of(each).exists() and made_of(each).stat().st_mtime >= newest for each in sources)


def compile_all(root: Path, sources: list[Path]) -> None:
    """Compile the modules, and put each beside its source. Nothing of an earlier time is left."""
    from mypyc.build import mypycify  # noqa: PLC0415 - see above
    from setuptools import Distribution  # noqa: PLC0415

    clear(root)
    os.chdir(root)  # mypyc names modules by their paths
    print(f"compiling {len(sources)} modules, once", flush=True)
    told = io.StringIO()  # mypyc remarks on what may be slow
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            extensions = mypycify(
                ["--config-file", "pyproject.toml", *(str(each.relative_to(root)) for each in sources)],
                opt_level="1",
                debug_level="0",
                group_name=GROUP,
                target_dir=SCRATCH,
            )
    except SystemExit:
        print(told.getvalue(), file=sys.stderr)
        raise
    build = Distribution({"name": "owsgit", "packages": [], "ext_modules": extensions}).get_command_obj("build_ext")
    build.inplace, build.parallel, build.build_temp = True, PARALLEL, SCRATCH
    build.ensure_finalized()
    build.run()
    for each in sources:
        made_of(each).touch()


def clear(root: Path) -> None:
    """Remove what was compiled."""
    for each in (*root.glob(f"*__mypyc{SUFFIX}"), *(root / "owsgit").rglob(f"*{SUFFIX}")):
        each.unlink()


def main() -> None:
    root = Path(__file__).parent
    if "--pure" in sys.argv[1:]:
        clear(root)
    elif missing := what_is_missing():
        clear(root)
        print(f"{missing}: owsgit is interpreted")
    elif not is_fresh(modules(root)):
        compile_all(root, modules(root))


if __name__ == "__main__":
    main()
