"""How the packages of a requirements.txt are built: by pip, with the function's interpreter, inside of the sandbox."""

import platform
import re
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import metadata, resources
from pathlib import Path, PurePosixPath

from owsgit.model.errors import InvalidError
from owsgit.runtime import environment, interpreters, pip_run, recipes
from owsgit.runtime.indexes import Index, Indexes
from owsgit.runtime.recipes import Places, Recipe

FILE = "requirements.txt"
FILES_MAX = 50
"""Requirement files that name each other."""

RETRIES, TIMEOUT_SECONDS = 2, 20
_NAMING = {"-r": "files", "--requirement": "files", "-c": "files", "--constraint": "files"}
_ASKING = ("-r", "--requirement", "-e", "--editable")
_FOLDERS = {"-f", "--find-links"}
_PACKAGE = re.compile(r".*(\.whl|\.zip|\.tar\.gz|\.tgz|\.tar\.bz2)$")


def recipe(code: Path, runtime: str, indexes: Indexes) -> Recipe | None:
    """How to build what the requirements.txt in `code` asks for; None if it is not there or asks for nothing.

    Raises InvalidError, UnavailableError.
    """
    if not (code / FILE).is_file():
        return None
    lines = list(_logical_lines(recipes.read(code, FILE)))
    count = sum(not line.startswith("-") or line.startswith(_ASKING) for line in lines)
    if not count:
        return None
    interpreter = interpreters.find(runtime)
    index = indexes.python()
    hashed = any("--hash" in line for line in lines)
    pip = Path(str(resources.files("pip")))
    name = interpreters.own_version() if runtime == "python" else runtime

    def command(places: Places) -> list[str]:
        script = f"{places.tools}/pip_run.py" if places.tools == TOOLS else pip_run.__file__
        shown = environment.PACKAGES["python"]
        arguments = [*_arguments(index, hashed), "--target", places.out, "-r", f"{places.source}/{FILE}"]
        return [str(interpreter.program), "-I", "-B", script, places.tools, places.out, shown, *arguments]

    return Recipe(
        file=FILE,
        count=count,
        sources=tuple(sorted(set(_sources(code)))),
        identity=(name, platform.machine(), *platform.libc_ver(), metadata.version("pip"), str(index.url)),
        command=command,
        environment=_environment,
        explain=partial(recipes.explain, _CAUSES),
        tools=pip.parent,
        read_only={
            f"{TOOLS}/pip": pip,
            f"{TOOLS}/pip_run.py": Path(pip_run.__file__),
            **{str(folder): folder for folder in interpreter.folders},
        },
        network=index.network,
    )


TOOLS = "/var/tools"


def _environment(places: Places) -> Mapping[str, str]:
    return {"PIP_CONFIG_FILE": "/dev/null", "SOURCE_DATE_EPOCH": "315532800"}  # the first day that a zip can tell


def _arguments(index: Index, hashed: bool) -> list[str]:
    found = [
        "install", "--isolated", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-compile",
        "--progress-bar", "off", "--root-user-action", "ignore", "--retries", str(RETRIES),
        "--timeout", str(TIMEOUT_SECONDS),
    ]  # fmt: skip
    if index.url:
        found += ["--index-url", index.url, *(["--trusted-host", index.host] if index.is_plain else [])]
    return found + (["--require-hashes"] if hashed else [])


def _logical_lines(text: str) -> Iterator[str]:
    """Lines as pip reads them: joined at a trailing backslash, without comments."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        plain = re.sub(r"(^|\s)#.*", "", line).strip()
        if plain:
            yield plain


def _sources(code: Path) -> Iterator[str]:
    """FILE, the files that it names, and what these name: wheels, folders of wheels, folders of source."""
    waiting, seen = [FILE], set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (code / path).is_file():
            continue
        seen.add(path)
        if len(seen) > FILES_MAX:
            raise InvalidError(f"more than {FILES_MAX} files of requirements name each other", file=FILE)
        yield path
        for line in _logical_lines(recipes.read(code, path)):
            if re.match(r"(-e|--editable)\b", line):
                raise InvalidError("-e is for development", file=path, remedy="name the folder without -e")
            for option, name in _named(line):
                for place in (PurePosixPath(path).parent / name, PurePosixPath(name)):
                    found = recipes.within(code, str(place))
                    yield from found
                    if _NAMING.get(option):
                        waiting += found


def _named(line: str) -> Iterator[tuple[str, str]]:
    """(option, path) of everything in a line that looks like a path."""
    option = ""
    for word in re.split(r"[\s=]+", re.sub(r"^(-[rcf])(?=[^\s-])", r"\1 ", line)):
        path = re.sub(r"\[[^\]]*\]$", "", word.strip("\"'").removeprefix("file:").split("#")[0])
        if word.startswith("-"):
            option = word
            continue
        if option in _NAMING or option in _FOLDERS or "/" in path or _PACKAGE.fullmatch(path):
            yield option, path
        option = ""


_CAUSES = (
    (
        r"DO NOT MATCH THE HASHES|Hash mismatch|HashMismatch",
        "a package is not the one that the hash in requirements.txt speaks of",
        "pip hash tells the hash of a file; find out why it is another one before you write it down",
    ),
    (
        r"Hashes are required in --require-hashes mode|all requirements must have their versions pinned",
        "one requirement has a hash, so all of them need one, and a version with ==",
        "pip-compile --generate-hashes writes such a file",
    ),
    (
        r"ConnectionError|NewConnectionError|ConnectTimeout|Connection refused|name resolution|connection broken",
        "the index cannot be reached from the build, which may reach nothing else",
        "is it up? (node.json: packageIndexes); what it does not have can be committed as a wheel, or be an asset",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "there is no {what} for this interpreter",
        "correct the name or the version, or commit a wheel",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies",
        "the requirements contradict each other",
        "loosen one of them",
    ),
    (
        r"metadata-generation-failed|Failed building wheel|subprocess-exited-with-error|installing build dependencies",
        "a package has no wheel for this interpreter, and cannot be built from source here",
        "commit a wheel that was built elsewhere: pip wheel",
    ),
    (
        r"Invalid requirement|invalid-requirement|no such option",
        "requirements.txt is not as pip wants it",
        "correct it",
    ),
    (r"Could not open requirements file|No such file|does not exist", "a file that is named is not there", "commit it"),
)
