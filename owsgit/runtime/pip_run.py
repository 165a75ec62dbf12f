"""Installs the packages of a function, inside of the sandbox: pip, then bytecode.

Stand-alone on purpose: it is run by path, by the function's interpreter, with nothing but the standard library and pip.
Bytecode that names no times is the same wherever it is made, and spares every cold start the compiling.
"""

import compileall
import py_compile
import runpy
import sys


def main() -> None:
    """Arguments: the folder that pip lies in, where to install, where that will lie for the function; then pip's."""
    tools, out, shown = sys.argv[1:4]
    sys.path.insert(0, tools)
    sys.argv[:] = ["pip", *sys.argv[4:]]
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(out, quiet=2, invalidation_mode=mode, stripdir=out, prependdir=shown)


if __name__ == "__main__":
    main()
