"""Compiles what every request passes, by mypyc, where there is a C compiler. Elsewhere it is interpreted, and slower.

pyproject.toml names the modules, at `[tool.hatch.build.hooks.custom]`. What is made of a module lies beside it and is
imported in its place. `make setup` runs this as a program, which does something only if something has changed; `--pure`
takes away what was compiled. A wheel has it if HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 is set when it is built, without
isolation (mypyc looks at the types of what is imported).

https://mypyc.readthedocs.io
"""

import ast
import contextlib
import fcntl
import io
import json
import os
import shlex
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # then this is no build
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build does not run here

from owsgit.node import compiled  # noqa: E402

GROUP = "owsgit"
"""The modules are one library, which knows their insides. It lies beside the package, where mypyc looks for it."""

SCRATCH = ROOT / ".mypyc"
PARALLEL = 2
INTERPRETED = "owsgit is interpreted, which costs a request a third more time, until make setup compiles it"


class CustomBuildHook(BuildHookInterface):
    """Hatchling's way in: https://hatch.pypa.io/latest/plugins/build-hook/custom/"""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # whoever has a checkout has `make setup`
            return
        sources = named()
        with _alone():
            if not is_fresh(sources):
                if missing := what_is_missing():
                    raise SystemExit(
                        f"{missing}: nothing can be compiled; HATCH_BUILD_HOOK_ENABLE_CUSTOM=0 builds a wheel without"
                    )
                compile_all(sources)
        build_data["pure_python"], build_data["infer_tag"] = False, True
        made = [*map(compiled.binary, sources), compiled.RECORD]
        build_data["artifacts"] += [str(each.relative_to(ROOT)) for each in made]
        build_data["force_include"].update({str(each): each.name for each in _libraries()})


def what_is_missing() -> str:
    """What it takes to compile and is not here; empty if all is."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]  # as setuptools has it
    if shutil.which(compiler) is None:
        return f"there is no C compiler {compiler!r} (Debian: gcc and libc6-dev; the variable CC names another)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return f"there are no headers of Python (Debian: python{sys.version_info[0]}.{sys.version_info[1]}-dev)"
    return ""


def named() -> list[Path]:
    """The modules that are to be compiled."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return [ROOT / each for each in tomllib.load(file)["tool"]["hatch"]["build"]["hooks"]["custom"]["modules"]]


def waits_in_handlers(text: str) -> Iterator[int]:
    """The lines of a module in which a coroutine waits while it handles an error: in `except`, in `finally`, at the end
    of an `async with`. mypyc does not keep the error of a coroutine that waits, so what is raised again afterwards is
    whatever error another one handles, or none, which crashes the interpreter."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.AsyncWith):
            yield node.lineno
        if isinstance(node, ast.Try | ast.TryStar):
            for each in (*node.handlers, *node.finalbody):
                for inner in ast.walk(each):
                    if isinstance(inner, ast.Await | ast.Yield | ast.YieldFrom | ast.AsyncFor):
                        yield inner.lineno
                    if isinstance(inner, ast.comprehension) and inner.is_async:
                        yield inner.target.lineno


def renamed_errors(text: str) -> Iterator[int]:
    """The lines of a module that call an error of one kind what the function calls one of another kind already. mypyc
    gives a name one type in a function, that of the first."""
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            kinds: dict[str, str] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                    kind = ast.unparse(node.type)
                    if kinds.setdefault(node.name, kind) != kind:
                        yield node.lineno


def imported(sources: Sequence[Path]) -> set[Path]:
    """The modules of the package that these import. What is compiled relies on the types that they declare."""
    found = set()
    for each in sources:
        for node in ast.walk(ast.parse(each.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
                found.update(ROOT / f"{name.replace('.', '/')}.py" for name in names)
    return {each for each in found if each.is_file()} - set(sources)


def is_fresh(sources: Sequence[Path]) -> bool:
    """Whether what was compiled is what would be compiled now."""
    there = all(compiled.binary(each).exists() for each in sources) and any(_libraries())
    return there and compiled.recorded() == _record(sources)


def _record(sources: Sequence[Path]) -> dict[str, object]:
    return {
        "compiler": f"mypyc {version('mypy')}",
        "suffix": compiled.SUFFIX,
        "build": compiled.digest(Path(__file__)),
        "modules": _digests(sources),
        "imported": _digests(sorted(imported(sources))),
    }


def _digests(sources: Sequence[Path]) -> dict[str, str]:
    return {each.relative_to(compiled.PACKAGE).as_posix(): compiled.digest(each) for each in sources}


def compile_all(sources: Sequence[Path]) -> None:
    """Compile the modules, and put each beside its source. Nothing of an earlier time is left."""
    for each in sources:
        for line in waits_in_handlers(each.read_text()):
            raise SystemExit(
                f"{each}:{line}: a coroutine waits while it handles an error, which mypyc compiles wrongly"
            )
        for line in renamed_errors(each.read_text()):
            raise SystemExit(f"{each}:{line}: the name is one of another error before, which mypyc compiles wrongly")
    from mypyc.build import mypycify  # noqa: PLC0415 - slow to import, and mostly there is nothing to do

    clear()
    record = _record(sources)
    os.chdir(ROOT)  # mypyc names modules by their paths
    print(f"compiling {len(sources)} modules, until they change; it takes a minute or two", file=sys.stderr, flush=True)
    options = ["--config-file", "pyproject.toml", "--cache-dir", str(SCRATCH / "cache")]
    told = io.StringIO()  # mypyc remarks on what may be slow
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            extensions = mypycify(
                [*options, *(str(each.relative_to(ROOT)) for each in sources)],
                opt_level="2",
                debug_level="0",
                group_name=GROUP,
                target_dir=str(SCRATCH),
            )
    except SystemExit:
        print(told.getvalue(), file=sys.stderr)
        raise
    try:
        build(extensions)
    except SystemExit:
        clear()  # or what is there already would be imported
        raise
    compiled.RECORD.write_text(json.dumps(record, indent=2) + "\n")


def build(extensions: list[Any]) -> None:
    """Have the C compiler make the extensions. Raises SystemExit if it fails, which has said why."""
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.errors import CCompilerError  # noqa: PLC0415

    command = Distribution({"name": "owsgit", "packages": [], "ext_modules": extensions}).get_command_obj("build_ext")
    command.inplace, command.force, command.parallel = True, True, PARALLEL
    command.build_temp = command.build_lib = str(SCRATCH)
    command.ensure_finalized()
    try:
        command.run()
    except CCompilerError:
        raise SystemExit(
            "the C compiler failed (see above; Debian: gcc, libc6-dev and"
            f" python{sys.version_info[0]}.{sys.version_info[1]}-dev are needed, and memory): {INTERPRETED}"
        ) from None


def _libraries() -> Iterator[Path]:
    return ROOT.glob(f"{GROUP}__mypyc.*.so")


def clear() -> None:
    """Remove what was compiled, for whatever Python."""
    compiled.RECORD.unlink(missing_ok=True)
    for each in (*_libraries(), *compiled.PACKAGE.rglob("*.cpython-*.so")):
        each.unlink()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait for whoever compiles here already: both would write the same files."""
    try:
        SCRATCH.mkdir(exist_ok=True)
        file = (SCRATCH / "lock").open("w")
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}: what is compiled lies beside its source") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    sources, pure = named(), "--pure" in sys.argv[1:]
    if not pure and is_fresh(sources):
        return
    with _alone():
        if pure:
            clear()
        elif not is_fresh(sources):
            if missing := what_is_missing():
                clear()
                print(f"{missing}: {INTERPRETED}", file=sys.stderr)
            else:
                compile_all(sources)


if __name__ == "__main__":
    main()
