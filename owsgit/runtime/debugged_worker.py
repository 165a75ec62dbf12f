"""The managed Python runtime with a debugger: dials the node, then goes on as python_worker.py.

Stand-alone as that is. Arguments: debugpy's folder, the port to dial, "wait" or "go", python_worker.py, and the number
of its socket. Only `owsgit dev` starts it.
"""

import importlib.util
import runpy
import sys

LOOPBACK = "127.0.0.1"


def main() -> None:
    folder, port, wait, script, number = sys.argv[1:6]
    spec = importlib.util.spec_from_file_location(
        "debugpy", f"{folder}/__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    debugpy = sys.modules["debugpy"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(debugpy)
    debugpy.configure(subProcess=False)  # they would need a line of their own
    if wait == "wait":
        debugpy.connect((LOOPBACK, int(port)))  # goes on once an editor is there, with its breakpoints
    else:
        import pydevd  # type: ignore[import-not-found]  # noqa: PLC0415 - what connect() calls, only it would wait

        pydevd.settrace(
            host=LOOPBACK, port=int(port), suspend=False, wait_for_ready_to_run=False, patch_multiprocessing=False,
            notify_stdin=False,
        )  # fmt: skip
    sys.argv[:] = [script, number]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
