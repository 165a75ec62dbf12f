"""How the packages of a package.json are built: by npm, with the function's Node.js, inside of the sandbox."""

import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.runtime import interpreters, recipes
from owsgit.runtime.indexes import Index, Indexes
from owsgit.runtime.recipes import Places, Recipe

FILE, LOCKS, SETTINGS = "package.json", ("package-lock.json", "npm-shrinkwrap.json"), ".npmrc"
FOLDER = "node_modules"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Whom the machine trusts, an index's own authority too: pip asks them by itself, Node.js only if it is told."""
_KINDS = ("dependencies", "optionalDependencies")


def asks(code: Path) -> bool:
    """Whether there is something to build: dependencies, and no node_modules that was committed."""
    return (code / FILE).is_file() and not _is_filled(code / FOLDER) and bool(_dependencies(_read(code)))


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def recipe(code: Path, runtime: str, indexes: Indexes) -> Recipe | None:
    """How to build what the package.json in `code` asks for. Raises InvalidError, UnavailableError."""
    if not asks(code):
        return None
    dependencies = _dependencies(_read(code))
    lock = next((name for name in LOCKS if (code / name).is_file()), None)
    interpreter, npm, index = interpreters.find(runtime), _npm(), indexes.npm()
    install = ["ci"] if lock else ["install", "--no-package-lock"]

    def command(places: Places) -> list[str]:
        program = str(npm / "bin/npm-cli.js")
        options = ["--omit=dev", "--no-audit", "--no-fund", "--install-links", "--loglevel=http", "--no-progress"]
        return [str(interpreter.program), program, *install, *options]

    def environment(places: Places) -> Mapping[str, str]:
        return _environment(places, index, interpreter.program)

    sources = {
        FILE,
        *([lock] if lock else []),
        *recipes.within(code, SETTINGS),
        *(path for each in _paths(dependencies) for path in recipes.within(code, each)),
    }
    own = {interpreter.program, *interpreter.folders, npm}
    return Recipe(
        file=FILE,
        count=len(dependencies),
        sources=tuple(sorted(sources)),
        identity=(
            runtime,
            str(interpreter.program),
            _version(npm),
            platform.machine(),
            *platform.libc_ver(),
            index.url,
        ),
        command=command,
        environment=environment,
        explain=partial(recipes.explain, _CAUSES),
        result=f"source/{FOLDER}",
        settle=_inline_links,
        read_only={str(path): path for path in own if not path.is_relative_to("/usr")},
        network=index.network,
    )


def _environment(places: Places, index: Index, program: Path) -> Mapping[str, str]:
    settings = {
        "cache": f"{places.tmp}/npm",
        "update_notifier": "false",
        "fetch_retries": "1",
        "fetch_retry_mintimeout": "1000",
        "fetch_timeout": "60000",
        "replace_registry_host": "always",
        "globalconfig": "/dev/null",
        **({"registry": index.url} if index.url else {}),
    }
    path = {"PATH": f"{program.parent}:/usr/local/bin:/usr/bin:/bin"}
    trusted = {"NODE_EXTRA_CA_CERTS": str(AUTHORITIES)} if AUTHORITIES.is_file() else {}
    return {**path, **trusted, **{f"npm_config_{name}": value for name, value in settings.items()}}


def _inline_links(work: Path) -> None:
    """Folders beside the code are links for npm; where the packages go, there is nothing that these could lead to."""
    source = (work / "source").resolve()
    folder = source / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return
    scopes = [path for path in folder.glob("@*") if path.is_dir() and not path.is_symlink()]
    for link in (path for place in (folder, *scopes) for path in list(place.iterdir()) if path.is_symlink()):
        target = link.resolve()
        if target.is_dir() and target.is_relative_to(source) and not folder.is_relative_to(target):
            link.unlink()
            shutil.copytree(target, link, symlinks=True)


def _read(code: Path) -> dict[str, Any]:
    try:
        found = json.loads(recipes.read(code, FILE))
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"this is not JSON: {error}", file=FILE) from None
    if not isinstance(found, dict):
        raise InvalidError("a JSON object is needed", file=FILE)
    return found


def _dependencies(package: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in _KINDS:
        given = package.get(kind, {})
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise InvalidError("an object with versions is needed", file=FILE, path=f"$.{kind}")
        found.update(given)
    return found


def _paths(dependencies: Mapping[str, str]) -> Iterator[str]:
    """What lies in the code itself."""
    for value in dependencies.values():
        if value.startswith(("file:", "./", "../")):
            yield value.removeprefix("file:")


def _npm() -> Path:
    """The folder of npm itself. Raises UnavailableError."""
    program = shutil.which("npm")
    folder = Path(program).resolve().parents[1] if program else Path()
    if program is None or not (folder / "bin/npm-cli.js").is_file():
        raise UnavailableError(
            "this node has no npm", file=FILE, remedy="install npm on the node, or commit node_modules/"
        )
    return folder


def _version(npm: Path) -> str:
    return str(json.loads((npm / FILE).read_text()).get("version", ""))


_CAUSES = (
    (
        r"SELF_SIGNED_CERT|UNABLE_TO_GET_ISSUER_CERT|UNABLE_TO_VERIFY_LEAF",
        "the index's certificate is of an authority that this node does not trust",
        "add it to those of the node's system: update-ca-certificates",
    ),
    (
        r"EINTEGRITY",
        "a package is not the one that the lock speaks of",
        "find out why it is another one before you write the lock anew",
    ),
    (
        r"npm (error|ERR!) code EUSAGE|can only install packages when your package.json and package-lock.json",
        "package.json and its lock do not fit each other",
        "run npm install, and commit both",
    ),
    (
        r"ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|ECONNRESET|ERR_SOCKET_TIMEOUT",
        "the index cannot be reached from the build, which may reach nothing else",
        "is it up? (node.json: packageIndexes); what it does not have can be committed as a tarball (file:x.tgz)",
    ),
    (r"E404|ETARGET|ENOVERSIONS", "there is no such package, or no such version", "correct package.json"),
    (r"ERESOLVE", "the dependencies contradict each other", "loosen one of them"),
    (
        r"EBADENGINE|EBADPLATFORM",
        "a package is not for this version of Node.js, or not for this machine",
        "choose another",
    ),
    (r"ENOENT", "a file that is named is not there", "commit it"),
)
