"""Compiled WebAssembly modules, by the hash of their content. Runs inside of the host's sandbox only.

A module is hostile, and a compiler is large: each is compiled by a process of its own that has limits of memory and
time and can be killed. What it leaves is mapped into the host.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import wasmtime

from owsgit.runtime.wasm_protocol import COMPILE, COMPILE_SECONDS_MAX, COMPILE_WITH_FUEL
from owsgit.runtime.wasm_wasi import define_wasi

MAGIC = b"\0asm"
CORE_MODULE = b"\1\0\0\0"
STACK_BYTES = 1024 * 1024
"""The stack of a module's calls; beyond it "call stack exhausted". C and Rust keep their own in linear memory."""

COMPILE_BYTES_MAX = 1024 * 1024 * 1024
COMPILED_BYTES_MAX = 256 * 1024 * 1024
CACHED_BYTES_MAX = 512 * 1024 * 1024
"""Compiled modules that are kept; the one that was used least recently makes room, and is compiled again if asked."""

COMPILERS_MAX = 2


class RefusedError(Exception):
    """A module that cannot be a function; `kind` is Lambda's name for it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Compiled:
    """A module that can be instantiated at once, by its engine. Size in bytes of its machine code."""

    engine: wasmtime.Engine
    prepared: wasmtime.InstancePre
    size: int


def make_engine(counts_fuel: bool) -> wasmtime.Engine:
    """An engine: interrupted by epochs, and without proposals that no WASI compiler needs."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.consume_fuel = counts_fuel
    config.max_wasm_stack = STACK_BYTES
    config.wasm_threads = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    config.wasm_component_model = False
    config.wasm_gc = False
    config.wasm_function_references = False
    config.gc_support = False
    return wasmtime.Engine(config)


class Engines:
    """The engine that counts fuel and the one that does not, each made when it is first needed; for many threads."""

    def __init__(self) -> None:
        self._made: dict[bool, wasmtime.Engine] = {}
        self._lock = threading.Lock()

    def get(self, counts_fuel: bool) -> wasmtime.Engine:
        with self._lock:
            if counts_fuel not in self._made:
                self._made[counts_fuel] = make_engine(counts_fuel)
            return self._made[counts_fuel]

    def tick(self) -> None:
        """Let an epoch pass in all of them."""
        for engine in list(self._made.values()):
            engine.increment_epoch()


def prepare(engine: wasmtime.Engine, module: wasmtime.Module) -> wasmtime.InstancePre:
    """Resolve the imports. Raises RefusedError."""
    try:
        prepared = define_wasi(engine).instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        text = f"{error}: only WASI preview 1 (wasi_snapshot_preview1) can be imported"
        raise RefusedError("Runtime.ImportModuleError", text) from None
    exported = {export.name: export.type for export in module.exports}
    start = exported.get("_start")
    if not isinstance(start, wasmtime.FuncType) or start.params or start.results:
        text = "the module does not export the function _start: build it as a command, not as a library"
        raise RefusedError("Runtime.HandlerNotFound", text)
    return prepared


class Modules:
    """The modules that a host knows, each by its hash and whether its fuel is counted; for use from many threads."""

    def __init__(self, engines: Engines, compiler: Sequence[str], folders: Sequence[str]) -> None:
        """`compiler` is the command that compiles; it is given a mode, a descriptor for the result, and `folders`."""
        self._engines = engines
        self._compiler = compiler
        self._folders = folders
        self._known: OrderedDict[tuple[str, bool], Compiled] = OrderedDict()
        self._lock = threading.Lock()
        self._compilers = threading.Semaphore(COMPILERS_MAX)

    def get(self, digest: str, counts_fuel: bool) -> Compiled | None:
        key = (digest, counts_fuel)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def add(self, digest: str, counts_fuel: bool, content: bytes) -> Compiled:
        """Compile a module and keep it. Raises RefusedError; TimeoutError if compiling takes too long."""
        if hashlib.sha256(content).hexdigest() != digest:
            raise RefusedError("Runtime.ImportModuleError", "the file changed while it was read")
        with self._compilers:
            compiled = self.get(digest, counts_fuel) or self._compile(counts_fuel, content)
        with self._lock:
            self._known[digest, counts_fuel] = compiled
            while len(self._known) > 1 and sum(each.size for each in self._known.values()) > CACHED_BYTES_MAX:
                self._known.popitem(last=False)
        return compiled

    def _compile(self, counts_fuel: bool, content: bytes) -> Compiled:
        engine = self._engines.get(counts_fuel)
        target = os.memfd_create("compiled")
        try:
            command = [*self._compiler, COMPILE_WITH_FUEL if counts_fuel else COMPILE, str(target), *self._folders]
            try:
                done = subprocess.run(
                    command,
                    input=content,
                    capture_output=True,
                    check=False,
                    pass_fds=[target],
                    timeout=COMPILE_SECONDS_MAX,
                )
            except subprocess.TimeoutExpired:
                raise TimeoutError from None
            if done.returncode != 0:
                raise _refusal(done)
            module = wasmtime.Module.deserialize_file(engine, f"/proc/self/fd/{target}")
            return Compiled(engine, prepare(engine, module), os.fstat(target).st_size)
        finally:
            os.close(target)


def _refusal(done: "subprocess.CompletedProcess[bytes]") -> RefusedError:
    try:
        report = json.loads(done.stdout)
        return RefusedError(report["kind"], report["message"])
    except (ValueError, KeyError, TypeError):
        text = (
            f"the module cannot be compiled within {COMPILE_BYTES_MAX >> 20} MiB of memory (status {done.returncode})"
        )
        return RefusedError("Runtime.ImportModuleError", text)


def compile_one(counts_fuel: bool, target: int) -> None:
    """The process that compiles: the module comes on stdin, a refusal leaves as JSON on stdout."""
    resource.setrlimit(resource.RLIMIT_DATA, (COMPILE_BYTES_MAX, COMPILE_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (COMPILED_BYTES_MAX, COMPILED_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    content = sys.stdin.buffer.read()
    try:
        compiled = _machine_code(counts_fuel, content)
    except RefusedError as error:
        print(json.dumps({"kind": error.kind, "message": str(error)}), flush=True)
        os._exit(1)
    with os.fdopen(target, "wb") as file:
        file.write(compiled)
    os._exit(0)


def _machine_code(counts_fuel: bool, content: bytes) -> bytes:
    kind = "Runtime.ImportModuleError"
    if not content.startswith(MAGIC):
        raise RefusedError(kind, "the file is not a WebAssembly module (it does not begin with \\0asm)")
    if content[4:8] != CORE_MODULE:
        text = "the file is a WebAssembly component: build a core module for WASI preview 1, such as wasm32-wasip1"
        raise RefusedError(kind, text)
    engine = make_engine(counts_fuel)
    try:
        module = wasmtime.Module(engine, content)
    except wasmtime.WasmtimeError as error:
        raise RefusedError(kind, f"the module is not valid: {error}") from None
    prepare(engine, module)
    return bytes(module.serialize())
