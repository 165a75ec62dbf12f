"""What every request passes is compiled where it can be, is what its source says, and runs as well without."""

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import Extension

import hatch_build
import owsgit
from owsgit import cli
from owsgit.model.errors import UnavailableError
from owsgit.node import compiled

ROOT = Path(hatch_build.__file__).parent
NAMED = hatch_build.named()
can_compile = pytest.mark.skipif(bool(hatch_build.what_is_missing()), reason=hatch_build.what_is_missing())


@can_compile
@pytest.mark.parametrize("source", NAMED, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_what_is_named_is_compiled(source: Path) -> None:
    module = importlib.import_module(".".join(source.relative_to(ROOT).with_suffix("").parts))
    assert module.__file__ == str(compiled.binary(source)), "make setup compiles it"


def test_nothing_interpreted_inherits_from_what_is_compiled() -> None:
    """mypyc's classes refuse it, when the first instance is made."""
    for each in pkgutil.walk_packages(owsgit.__path__, "owsgit."):
        if each.name not in ("owsgit.__main__", "owsgit.runtime.zygote"):  # programs, the second one of a sandbox
            importlib.import_module(each.name)
    names = {".".join(source.relative_to(ROOT).with_suffix("").parts) for source in NAMED}
    classes = [each for name in names for each in vars(sys.modules[name]).values() if isinstance(each, type)]
    below = [sub for each in classes if each.__module__ in names for sub in each.__subclasses__()]
    assert below
    assert [sub for sub in below if sub.__module__ not in names and sub.__module__.startswith("owsgit.")] == []


def test_what_is_compiled_is_what_its_source_says() -> None:
    assert compiled.check() == (0 if hatch_build.what_is_missing() else len(NAMED))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one module that is said to be compiled."""
    source = tmp_path / "gateway/app.py"
    source.parent.mkdir()
    source.write_text("one = 1\n")
    compiled.binary(source).touch()
    monkeypatch.setattr(compiled, "PACKAGE", tmp_path)
    monkeypatch.setattr(compiled, "RECORD", tmp_path / "compiled.json")
    compiled.RECORD.write_text(json.dumps({"modules": {"gateway/app.py": compiled.digest(source)}}))
    return tmp_path


def test_a_module_that_changed_after_it_was_compiled_is_refused(package: Path) -> None:
    assert compiled.check() == 1
    (package / "gateway/app.py").write_text("one = 2\n")
    with pytest.raises(UnavailableError, match=r"gateway/app.py: this is not the source that was compiled") as refused:
        compiled.check()
    assert "make setup" in str(refused.value)


@pytest.mark.parametrize("record", [None, b"", b"[]", b'{"modules": 1}', b'{"modules": {}}'])
def test_what_was_not_compiled_to_its_end_is_refused(package: Path, record: bytes | None) -> None:
    if record is None:
        compiled.RECORD.unlink()
    else:
        compiled.RECORD.write_bytes(record)
    with pytest.raises(UnavailableError, match="not the source that was compiled"):
        compiled.check()


def test_no_command_runs_what_was_compiled_of_another_source(package: Path) -> None:
    compiled.RECORD.unlink()
    with pytest.raises(UnavailableError, match="not the source that was compiled"):
        cli.owsgit.main(["validate", "--help"], standalone_mode=False)


def test_what_is_compiled_is_compiled_again_when_the_types_that_it_relies_on_may_have_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = [ROOT / "owsgit/gateway/exchange.py"]
    record, digest = hatch_build._record(sources), compiled.digest
    monkeypatch.setattr(compiled, "digest", lambda source: "0" if source.name == "limits.py" else digest(source))
    assert hatch_build._record(sources) != record


def test_a_c_compiler_is_looked_for_as_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "sh -e")  # a program that is there
    assert "compiler" not in hatch_build.what_is_missing()
    monkeypatch.setenv("CC", "nothing-like-it -e")
    assert "there is no C compiler 'nothing-like-it'" in hatch_build.what_is_missing()


@can_compile
def test_a_c_compiler_that_fails_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "SCRATCH", tmp_path)
    (tmp_path / "bad.c").write_text("this is no C\n")
    with pytest.raises(SystemExit, match=r"the C compiler failed .* owsgit is interpreted"):
        hatch_build.build([Extension("owsgit.bad", [str(tmp_path / "bad.c")])])


def test_a_checkout_that_cannot_be_written_to_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(hatch_build, "SCRATCH", tmp_path / "file" / "scratch")
    monkeypatch.setattr(sys, "argv", ["hatch_build.py", "--pure"])
    with pytest.raises(SystemExit, match="Not a directory: what is compiled lies beside its source"):
        hatch_build.main()


def test_what_another_python_compiled_is_not_looked_at(package: Path) -> None:
    (package / "gateway/app.py").write_text("one = 2\n")
    compiled.binary(package / "gateway/app.py").rename(package / "gateway/app.cpython-39-x86_64-linux-gnu.so")
    assert compiled.check() == 0


@pytest.mark.parametrize(
    "code",
    [
        "async def f(x):\n    try:\n        await x\n    except OSError:\n        await x\n        raise\n",
        "async def f(x):\n    try:\n        await x\n    finally:\n        await x\n",
        "async def f(x):\n    async with x:\n        pass\n",
        "async def f(x):\n    try:\n        await x\n    finally:\n        async for _ in x:\n            pass\n",
        "async def f(x):\n    try:\n        await x\n    except OSError:\n        return [_ async for _ in x]\n",
    ],
)
def test_a_coroutine_that_waits_while_it_handles_an_error_is_not_compiled(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(hatch_build.waits_in_handlers(code))
    source = tmp_path / "bad.py"
    source.write_text(code)
    with pytest.raises(SystemExit, match=r"bad.py:\d: a coroutine waits while it handles an error"):
        hatch_build.compile_all([source])


def test_a_name_of_two_kinds_of_errors_is_not_compiled(tmp_path: Path) -> None:
    code = "def f():\n    try:\n        g()\n    except KeyError as error:\n        h(error)\n    except OSError as error:\n        pass\n"
    assert list(hatch_build.renamed_errors(code)) == [6]
    (tmp_path / "module.py").write_text(code)
    with pytest.raises(SystemExit, match=r"module\.py:6: the name"):
        hatch_build.compile_all([tmp_path / "module.py"])
    other = code.replace("except OSError as error", "except OSError as problem")
    assert not list(hatch_build.renamed_errors(other))


def test_a_coroutine_that_waits_elsewhere_is() -> None:
    code = (
        "async def f(x):\n    try:\n        await x\n    except OSError:\n        raise\n    else:\n        await x\n"
    )
    assert not list(hatch_build.waits_in_handlers(code))


def test_the_same_code_serves_when_it_is_interpreted(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "owsgit", tmp_path / "owsgit", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "hatch_build.py", tmp_path)
    files = [f"tests/gateway/test_{each}.py" for each in ("http", "limits", "streaming", "integrations")]
    told = "import owsgit.gateway.cycle as c; assert c.__file__.startswith({!r}) and c.__file__.endswith('.py')"
    subprocess.run([sys.executable, "-c", told.format(str(tmp_path))], cwd=tmp_path, check=True)
    ran = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *files]
    done = subprocess.run(ran, cwd=tmp_path, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout


@can_compile
def test_a_wheel_has_what_is_compiled_if_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hatch_build.is_fresh(NAMED), "make setup: a test does not compile what other tests use"
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w"]
    names = {}
    for asked in ("0", "1"):
        monkeypatch.setenv("HATCH_BUILD_HOOK_ENABLE_CUSTOM", asked)
        subprocess.run([*pip, str(tmp_path / asked), str(ROOT)], check=True)
        (made,) = (tmp_path / asked).iterdir()
        names[asked] = made.name, set(zipfile.ZipFile(made).namelist())
    expected = {str(compiled.binary(each).relative_to(ROOT)) for each in NAMED} | {"owsgit/compiled.json"}
    assert names["0"][0].endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in names["0"][1]) and "owsgit/compiled.json" not in names["0"][1]
    assert "none-any" not in names["1"][0]
    assert expected <= names["1"][1]
    installed = tmp_path / "installed"
    zipfile.ZipFile(made).extractall(installed)
    told = "import owsgit.gateway.cycle as c, owsgit.node.compiled as n; print(c.__file__, n.check())"
    ran = [sys.executable, "-c", told]
    done = subprocess.run(ran, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True)
    expected_file = installed / "owsgit/gateway" / f"cycle{compiled.SUFFIX}"
    assert done.stdout.decode().split() == [str(expected_file), str(len(NAMED))], done.stderr
