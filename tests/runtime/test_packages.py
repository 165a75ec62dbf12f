"""Packages: built in the sandbox from what is beside the code, once for each content, and within bounds."""

import asyncio
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.runtime import node_packages, packages
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.indexes import Indexes
from owsgit.runtime.packages import BuildError, PackageStore
from owsgit.runtime.recipes import Recipe
from tests.support.archives import wheel
from tests.support.indexes import serving
from tests.support.loops import end_tasks

Result = TypeVar("Result")
NOWHERE = {"python": "http://127.0.0.1:9/simple", "npm": "http://127.0.0.1:9/"}
"""Port 9 discards: nothing listens there."""


class Builder:
    """A store, and functions' folders to build for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "packages").mkdir()
        self.loop = asyncio.new_event_loop()
        self.told: list[str] = []

        async def made() -> Bubblewrap:
            return Bubblewrap(f"owsgit-test-{uuid.uuid4().hex[:8]}", [folder / "packages"])

        self.sandbox = self.run(made())
        self.use(NOWHERE)

    def use(self, indexes: dict[str, str]) -> None:
        async def made() -> PackageStore:
            return PackageStore(self.folder / "packages", self.sandbox, Indexes(indexes))

        self.store = self.run(made())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(work)

    def code(self, files: dict[str, str | bytes]) -> Path:
        folder = self.folder / uuid.uuid4().hex[:8]
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    def recipe(self, folder: Path, runtime: str = "python") -> Recipe | None:
        return self.store.recipe(folder, runtime)

    def build(self, files: dict[str, str | bytes], runtime: str = "python") -> Path:
        return self.run(self.building(files, runtime))[1]

    async def building(self, files: dict[str, str | bytes], runtime: str = "python") -> tuple[str, Path]:
        folder = self.code(files)
        recipe = self.recipe(folder, runtime)
        assert recipe is not None
        return await self.store.provide(folder, recipe, self.told.append)

    def close(self) -> None:
        self.run(self.store.close())
        self.run(asyncio.sleep(0.05))
        self.run(self.sandbox.close())
        self.run(end_tasks())
        self.loop.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    made = Builder(tmp_path_factory.mktemp("builder"))
    yield made
    made.close()


@pytest.fixture
def builder(shared: Builder) -> Builder:
    shared.told.clear()
    shared.use(NOWHERE)
    return shared


A, B = wheel("liba"), wheel("libb", requires="liba")


def sdist(name: str, setup: str) -> tuple[str, bytes]:
    """The source distribution of a package with a build backend of its own, which needs nothing from an index."""
    backend = (
        "import os, shutil, zipfile\n"
        f"def build_wheel(where, config_settings=None, metadata_directory=None):\n{setup}\n"
        f"    shutil.copy('ready.whl', os.path.join(where, '{name}-1.0-py3-none-any.whl'))\n"
        f"    return '{name}-1.0-py3-none-any.whl'\n"
    )
    files = {
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend.encode(),
        "ready.whl": wheel(name)[1],
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
    }
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return f"{name}-1.0.tar.gz", data.getvalue()


def test_committed_wheels_are_installed_without_any_index_and_compiled(builder: Builder) -> None:
    text = f"# ours\n./wheels/{A[0]}\n./wheels/{B[0]}  # needs liba\n"
    folder = builder.build({"requirements.txt": text, f"wheels/{A[0]}": A[1], f"wheels/{B[0]}": B[1]})
    assert (folder / "liba.py").read_text() == "version = '1.0'\n" and (folder / "libb.py").exists()
    assert {path.stat().st_mode & 0o222 for path in [folder, *folder.rglob("*")]} == {0}
    (compiled,) = (folder / "__pycache__").glob("liba.*.pyc")
    assert compiled.read_bytes()[4:8] == (1).to_bytes(4, "little"), "unchecked hash: no times in it (PEP 552)"
    assert b"/var/lang/site-packages/liba.py" in compiled.read_bytes()
    assert builder.told[0] == "installing 2 packages of requirements.txt"
    assert builder.told[-1].startswith("installed 2 packages of requirements.txt in ")


def test_what_is_named_by_options_and_other_files_is_found(builder: Builder) -> None:
    files: dict[str, str | bytes] = {
        "requirements.txt": "--no-index\n-r more/base.txt\n--find-links=wheels\n-c more/pins.txt\nlibb\n",
        "more/base.txt": "-f ../wheels\nliba\n",
        "more/pins.txt": "liba==1.0\n",
        "more/unused.txt": "nothing\n",
        "app.py": "",
        f"wheels/{A[0]}": A[1],
        f"wheels/{B[0]}": B[1],
    }
    folder = builder.code(files)
    recipe = builder.recipe(folder)
    assert recipe is not None
    assert set(recipe.sources) == set(files) - {"app.py", "more/unused.txt"}
    assert (builder.run(builder.store.provide(folder, recipe, print))[1] / "libb.py").exists()


def test_the_same_content_is_built_once_for_all_and_anything_else_anew(builder: Builder) -> None:
    own = wheel("libonce")
    files: dict[str, str | bytes] = {"requirements.txt": f"./{own[0]}\n", own[0]: own[1]}

    async def both() -> list[tuple[str, Path]]:
        return await asyncio.gather(*(builder.building({**files, "app.py": str(number)}) for number in range(3)))

    found = builder.run(both())
    assert len(set(found)) == 1
    assert sum(text.startswith("installing") for text in builder.told) == 1
    assert sum(text.startswith("waits for 1 package") for text in builder.told) == 2
    assert sum(text.startswith("installed") for text in builder.told) == 3, "whoever waits hears of it"
    builder.told.clear()
    assert builder.build(files) == found[0][1] and builder.told == []
    other = wheel("libonce", libonce="other = 1\n")
    assert builder.build({"requirements.txt": f"./{other[0]}\n", other[0]: other[1]}) != found[0][1]


def test_packages_come_from_the_index_that_the_node_names(builder: Builder) -> None:
    own = wheel("libindexed", requires="liba")
    with serving(dict([own, A])) as index:
        builder.use({"python": index.url})
        digest = hashlib.sha256(own[1]).hexdigest()
        assert (builder.build({"requirements.txt": "libindexed>=1\n"}) / "liba.py").exists()
        with pytest.raises(BuildError, match="is not the one that the hash") as wrong:
            builder.build({"requirements.txt": f"libindexed==1.0 --hash=sha256:{'0' * 64}\n"})
        assert digest in str(wrong.value) and wrong.value.problems[0].file == "requirements.txt"
        with pytest.raises(BuildError, match="all of them need one"):
            builder.build({"requirements.txt": f"libindexed==1.0 --hash=sha256:{digest}\n"})
        with pytest.raises(BuildError, match="there is no libnone for this interpreter"):
            builder.build({"requirements.txt": "libnone\n"})
        asked = len(index.asked)
        builder.build({"requirements.txt": "libindexed>=1\n"})
        assert len(index.asked) == asked, "it is there already"


def test_an_index_that_is_not_there_is_named_as_the_reason(builder: Builder) -> None:
    with pytest.raises(BuildError, match="the index cannot be reached"):
        builder.build({"requirements.txt": "liba\n"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./wheels/none-1.0-py3-none-any.whl\n", "a file that is named is not there"),
        ("this is not = a requirement\n", "not as pip wants it"),
        ("../../etc/passwd\n", "."),
    ],
)
def test_bad_requirements_are_told_with_what_pip_said(builder: Builder, text: str, message: str) -> None:
    with pytest.raises(BuildError, match=message) as error:
        builder.build({"requirements.txt": text})
    assert "  | ERROR: " in str(error.value)
    assert not list((builder.folder / "packages").glob(".*")), "nothing is left of a failed build"


@pytest.mark.parametrize("text", ["-e ./lib\n", "--editable=./lib\n"])
def test_editable_requirements_are_refused(builder: Builder, text: str) -> None:
    with pytest.raises(InvalidError, match="for development"):
        builder.recipe(builder.code({"requirements.txt": text, "lib/setup.py": ""}))


@pytest.mark.parametrize("files", [{}, {"requirements.txt": "# none\n\n"}, {"package.json": '{"type": "module"}'}])
def test_nothing_is_built_for_whoever_asks_for_nothing(builder: Builder, files: dict[str, str | bytes]) -> None:
    assert builder.recipe(builder.code({"app.py": "", **files})) is None


def test_building_from_source_sees_nothing_of_the_node_and_can_keep_nothing(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    peek = f"""
    import pathlib, socket
    seen = [str(path) for path in map(pathlib.Path, ({str(tmp_path)!r}, {str(builder.folder)!r}, '/root/.ssh', '/home', '/var/task')) if path.exists()]
    reached = []
    for port in (7022, 22):
        try:
            socket.create_connection(('127.0.0.1', port), 1)
            reached.append(port)
        except OSError:
            pass
    for place in ('/etc/own', '/var/tools/pip/own', '/usr/own'):
        try:
            open(place, 'w')
            seen.append(place)
        except OSError:
            pass
    assert not seen and not reached, (seen, reached)
    assert not {{name for name in os.environ if 'AWS' in name or 'SECRET' in name}}
    os.mkfifo('/build/pipe')
"""
    own = sdist("libsource", peek)
    folder = builder.build({"requirements.txt": f"./{own[0]}\n", own[0]: own[1]})
    assert (folder / "libsource.py").exists()


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ("    raise SystemExit(3)", "cannot be built from source"),
        ("    x = []\n    while True:\n        x.append(bytearray(1 << 26))", "MiB of memory"),
        ("    f = open('/build/out/x', 'wb')\n    while True:\n        f.write(b'x' * (1 << 22))", "File too large"),
        (
            "    for n in range(10):\n        open(f'/build/out/{n}', 'wb').write(b'x' * (1 << 23))",
            "larger than may be",
        ),
        ("    os.symlink('/etc/passwd', '/build/out/link')", "leads out of its folder"),
        ("    os.mkfifo('/build/out/pipe')", "neither a file nor a folder"),
        ("    import time; time.sleep(60)", "not done within 5 s"),
        ("    while True:\n        os.fork()", "."),
    ],
    ids=["exit", "memory", "file", "size", "link", "fifo", "time", "forks"],
)
def test_a_build_that_does_harm_is_ended_and_leaves_nothing(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, setup: str, message: str
) -> None:
    monkeypatch.setattr(packages, "UNPACKED_BYTES_MAX", 1 << 26)
    monkeypatch.setattr(packages, "FILE_BYTES_MAX", 1 << 25)
    monkeypatch.setattr(packages, "MEMORY_BYTES_MAX", 1 << 28)
    monkeypatch.setattr(packages, "BUILD_SECONDS_MAX", 5.0)
    own = sdist("libevil", setup)
    with pytest.raises(BuildError, match=message):
        builder.build({"requirements.txt": f"./{own[0]}\n", own[0]: own[1]})
    assert not list((builder.folder / "packages").glob(".*"))


def test_a_build_that_takes_long_goes_on_while_its_function_is_tried_again(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "PATIENCE_SECONDS", 0.05)
    own = sdist("libslow", "    import time; time.sleep(1)")
    files: dict[str, str | bytes] = {"requirements.txt": f"./{own[0]}\n", own[0]: own[1]}
    with pytest.raises(UnavailableError, match="still being installed"):
        builder.build(files)
    monkeypatch.setattr(packages, "PATIENCE_SECONDS", 60.0)
    assert (builder.build(files) / "libslow.py").exists()
    assert sum(text.startswith("installing 1") for text in builder.told) == 1


def test_what_was_changed_by_hand_is_noticed_and_built_again(builder: Builder) -> None:
    files: dict[str, str | bytes] = {"requirements.txt": f"./{A[0]}\n", A[0]: A[1]}
    key, folder = builder.run(builder.building(files))
    (folder / "liba.py").chmod(0o644)
    assert builder.store.drift(key) is not None
    assert builder.run(builder.building(files)) == (key, folder) and builder.store.drift(key) is None


def test_builds_that_nobody_uses_go_when_there_are_too_many(tmp_path: Path, builder: Builder) -> None:
    (tmp_path / "store").mkdir()
    store = PackageStore(tmp_path / "store", builder.sandbox, Indexes({}))
    for number in range(packages.SPARE_MAX + 3):
        made = store._store.make(f"k{number}", lambda scratch: (scratch / "x").touch())
        os.utime(made.with_name(f"{made.name}.manifest"), (number, number))
    store.sweep({"k0"})
    assert store.drift("k0") is None and store.drift("k1") is not None and store.drift("k22") is None


def test_a_node_that_was_killed_while_it_built_builds_again(tmp_path: Path) -> None:
    """The process is killed for good; what it left half made is swept away, and no folder of it is taken for whole."""
    own = sdist("libkilled", "    import time; time.sleep(0 if os.path.exists('/build/source/now') else 60)")
    script = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.runtime.test_packages import Builder, sdist, NOWHERE
builder = Builder(Path(sys.argv[1]))
builder.build({{"requirements.txt": "./libkilled-1.0.tar.gz\\n", "libkilled-1.0.tar.gz": open(sys.argv[2], "rb").read()}})
"""
    (tmp_path / own[0]).write_bytes(own[1])
    (tmp_path / "home").mkdir()
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "home", tmp_path / own[0]])
    store = tmp_path / "home/packages"
    deadline = time.monotonic() + 30
    while not list(store.glob(".*.new/tmp/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    left = list(store.glob(".*.new"))
    assert left and not list(store.glob("*.manifest"))
    made = PackageStore(store, None, Indexes({}))  # type: ignore[arg-type]
    made.sweep(set())
    assert not list(store.iterdir())


def npm_package(name: str, **more: str) -> bytes:
    """A tarball as npm pack makes it."""
    files = {
        "package.json": f'{{"name": "{name}", "version": "1.0.0", "main": "index.js"}}',
        "index.js": "exports.x = 1\n",
    }
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for path, content in {**files, **more}.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    return data.getvalue()


def test_an_index_whose_authority_is_unknown_to_npm_is_told(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"dependencies": {"left": "^1"}}')
    recipe = node_packages.recipe(tmp_path, "nodejs", Indexes(NOWHERE))
    failure = recipe.explain("npm error code SELF_SIGNED_CERT_IN_CHAIN") if recipe else None
    assert failure is not None and "update-ca-certificates" in failure.remedy


def test_packages_of_node_are_installed_by_npm(builder: Builder) -> None:
    package = '{"dependencies": {"left": "file:vendor/left.tgz", "right": "file:./right"}}'
    files: dict[str, str | bytes] = {
        "package.json": package,
        "vendor/left.tgz": npm_package("left"),
        "right/package.json": '{"name": "right", "version": "1.0.0", "scripts": {"install": "node trusted.js"}}',
        "right/trusted.js": "require('fs').readFileSync(process.env.NODE_EXTRA_CA_CERTS)",
    }
    folder = builder.build(files, "nodejs")
    assert (folder / "left/index.js").exists() and (folder / "right/package.json").exists()
    assert not (folder / "right").is_symlink()
    assert builder.told[0] == "installing 2 packages of package.json"
    with pytest.raises(BuildError, match="the index cannot be reached"):
        builder.build({"package.json": '{"dependencies": {"left": "^1"}}'}, "nodejs")
    with pytest.raises(BuildError, match="do not fit each other"):
        lock = '{"name": "x", "lockfileVersion": 3, "packages": {"": {}}}'
        builder.build({**files, "package-lock.json": lock}, "nodejs")
