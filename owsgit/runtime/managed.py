"""What is started for each of the managed runtimes: its interpreter, with the worker that runs in the sandbox."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from owsgit.runtime import interpreters, node_programs, python_worker
from owsgit.runtime.config import FunctionConfig
from owsgit.runtime.interpreters import Interpreter

INSIDE = "/var/runtime"
NODE_WORKER = Path(__file__).with_name("node_worker.cjs")
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


def program(config: FunctionConfig, contained: bool) -> Program:
    """The worker program of `config`, at its place in the sandbox if there is one. Raises UnavailableError."""
    return FAMILIES[config.family](config, contained)


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


def _script(path: Path, contained: bool) -> str:
    return f"{INSIDE}/{path.name}" if contained else str(path)


def _mounts(interpreter: Interpreter) -> dict[str, Path]:
    return {str(folder): folder for folder in interpreter.folders}


FAMILIES: dict[str, Callable[[FunctionConfig, bool], Program]] = {"python": _python, "nodejs": _nodejs}
