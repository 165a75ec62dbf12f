"""Finds the interpreters of this machine for the runtimes that functions name."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from owsgit.model.errors import UnavailableError
from owsgit.runtime import node_programs

_ASK = "import json, sys; print(json.dumps([sys.base_prefix, sys.base_exec_prefix]))"


@dataclass(frozen=True)
class Interpreter:
    """An interpreter: its program, and the folders (or files) that have to be there for it to run."""

    program: Path
    folders: tuple[Path, ...]


def own_version() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


@lru_cache(maxsize=32)
def find(runtime: str) -> Interpreter:
    """The interpreter for `runtime` ('python', 'python3.11', 'nodejs', 'nodejs20.x', ...). Raises UnavailableError."""
    if runtime.startswith("nodejs"):
        program = node_programs.find(runtime)
        return Interpreter(program, () if program.is_relative_to("/usr") else (program,))
    name = own_version() if runtime == "python" else runtime
    if name == own_version():
        prefix = Path(sys.base_prefix)
        return _interpreter(prefix / "bin" / name, prefix, Path(sys.base_exec_prefix))
    found = shutil.which(name)
    if found is None:
        raise UnavailableError(
            f"this node has no {name} (it has {own_version()})",
            path="$.runtime",
            remedy=f"install {name} on the node, or write 'python' for the node's own version",
        )
    answer = subprocess.run([found, "-I", "-c", _ASK], capture_output=True, text=True, check=False, timeout=30)
    if answer.returncode != 0:
        said = next((line for line in answer.stderr.splitlines() if line.strip()), f"exit code {answer.returncode}")
        raise UnavailableError(
            f"{found} does not run: {said}",
            path="$.runtime",
            remedy=f"see that {name} runs for the node's user, or write 'python' for the node's own version",
        )
    prefix, exec_prefix = (Path(path) for path in json.loads(answer.stdout))
    return _interpreter(prefix / "bin" / name, prefix, exec_prefix)


def _interpreter(program: Path, *prefixes: Path) -> Interpreter:
    """Folders below /usr are in every sandbox already."""
    if not program.exists():
        raise UnavailableError(f"{program} does not exist")
    outside = {prefix for prefix in prefixes if not prefix.is_relative_to("/usr")}
    return Interpreter(program, tuple(sorted(outside)))
