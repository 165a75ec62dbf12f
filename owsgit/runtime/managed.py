"""What is started for each of the managed runtimes: its interpreter, with the worker that runs in the sandbox."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from owsgit.runtime import debugger, interpreters, node_programs, python_worker
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.interpreters import Interpreter
from owsgit.runtime.worker import MEBIBYTE

INSIDE = "/var/runtime"
NODE_WORKER = Path(__file__).with_name("node_worker.cjs")

DEBUG_INSIDE = "/var/debugger"
PYTHON_DEBUGGED = Path(__file__).with_name("debugged_worker.py")
NODE_DEBUGGED = Path(__file__).with_name("debugged_worker.cjs")

YOUNG_PERCENT = 10
"""Of a Node.js function's memory, as on Lambda: the heap's part for young objects; the rest is the limit of the old."""

CODE_RANGE_BYTES = 512 * 1024 * 1024
CODE_RANGE_SINCE = 23
"""From this release on V8 maps its whole range for compiled code as writable, at its start."""


@dataclass(frozen=True)
class Program:
    """The command line, to which the descriptor of the protocol is added, and what has to be mounted for it."""

    arguments: tuple[str, ...]
    read_only: dict[str, Path]
    interpreter: Interpreter | None = None  # a Python interpreter that may be there already
    reserved_bytes: int = 0
    debugger_bytes: int = 0


def program(config: FunctionConfig, contained: bool, debug_port: int) -> Program:
    """The worker program of `config`, at its place in the sandbox if there is one. Raises UnavailableError.

    If it is debugged, its debugger dials `debug_port`.
    """
    found = FAMILIES[config.family](config, contained)
    return found if config.debugging is None else DEBUGGED[config.family](found, config, contained, debug_port)


def _python(config: FunctionConfig, contained: bool) -> Program:
    interpreter = interpreters.find(config.runtime)
    script = _script(Path(python_worker.__file__), contained)
    arguments = (str(interpreter.program), "-I", "-S", "-B", "-X", "utf8", script)
    return Program(arguments, _mounts(interpreter), interpreter)


def _nodejs(config: FunctionConfig, contained: bool) -> Program:
    interpreter = interpreters.find(config.runtime)
    young = config.memory_size * YOUNG_PERCENT // 100
    limits = f"--max-old-space-size={config.memory_size - young}", f"--max-semi-space-size={max(young // 2, 1)}"
    arguments = (str(interpreter.program), *limits, _script(NODE_WORKER, contained))
    reserved = CODE_RANGE_BYTES if node_programs.major_of(interpreter.program) >= CODE_RANGE_SINCE else 0
    return Program(arguments, _mounts(interpreter), reserved_bytes=reserved)


def _debugged_python(found: Program, config: FunctionConfig, contained: bool, port: int) -> Program:
    """Started anew: what a fork server imports, no debugger has seen."""
    assert config.debugging is not None
    *options, script = found.arguments
    folder = debugger.debugpy_folder()
    mounts = {f"{DEBUG_INSIDE}/debugpy": folder, f"{DEBUG_INSIDE}/{PYTHON_DEBUGGED.name}": PYTHON_DEBUGGED}
    package, starter = mounts if contained else map(str, mounts.values())
    arguments = (
        *options, "-X", "frozen_modules=off", starter, package, str(port), "wait" if config.debugging.wait else "go",
        script,
    )  # fmt: skip
    return replace(
        found,
        arguments=arguments,
        read_only={**found.read_only, **mounts},
        interpreter=None,
        debugger_bytes=debugger.MEBIBYTES * MEBIBYTE,
    )


def _debugged_nodejs(found: Program, config: FunctionConfig, contained: bool, port: int) -> Program:
    """Its inspector listens in the sandbox's own network, or on any free port of the machine's loopback address."""
    assert config.debugging is not None
    program, *options, script = found.arguments
    place = f"{DEBUG_INSIDE}/{NODE_DEBUGGED.name}"
    arguments = (
        program, *options, f"--inspect={debugger.LOOPBACK}:{debugger.INSPECTOR_INSIDE if contained else 0}",
        place if contained else str(NODE_DEBUGGED), str(port), "wait" if config.debugging.wait else "go", script,
    )  # fmt: skip
    return replace(
        found,
        arguments=arguments,
        read_only={**found.read_only, place: NODE_DEBUGGED},
        debugger_bytes=debugger.MEBIBYTES * MEBIBYTE,
    )


def _script(path: Path, contained: bool) -> str:
    return f"{INSIDE}/{path.name}" if contained else str(path)


def _mounts(interpreter: Interpreter) -> dict[str, Path]:
    return {str(folder): folder for folder in interpreter.folders}


FAMILIES: dict[str, Callable[[FunctionConfig, bool], Program]] = {"python": _python, "nodejs": _nodejs}
DEBUGGED: dict[str, Callable[[Program, FunctionConfig, bool, int], Program]] = {
    "python": _debugged_python,
    "nodejs": _debugged_nodejs,
}
"""What a debugger is added to, and how."""
