"""Zip files that were made to do harm."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from owsgit.model.errors import InvalidError
from owsgit.runtime import archives, code
from owsgit.runtime.archives import Room
from tests.support.archives import zipped


def unpack(folder: Path, data: bytes) -> Path:
    (folder / "a.zip").write_bytes(data)
    (folder / "out").mkdir()
    archives.unpack(folder / "a.zip", folder / "out", Room())
    code.protect(folder / "out")
    return folder / "out"


def test_files_keep_what_can_be_executed_and_nothing_else(tmp_path: Path) -> None:
    modes = {"a/run": 0o104777, "b": 0o100600, "link": 0o120777}
    out = unpack(tmp_path, zipped({"a/run": "x", "b": "y", "c/": "", "link": "a/run"}, modes))
    assert stat.S_IMODE((out / "a/run").stat().st_mode) == 0o555 and stat.S_IMODE((out / "b").stat().st_mode) == 0o444
    assert (out / "c").is_dir() and (out / "link").readlink() == Path("a/run")
    code.remove(out)
    assert not out.exists()


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a\\b", "c:x", "a/\x07", "a//b/\x7f", "/".join("a" * 70)])
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidError, match="which is not taken"):
        unpack(tmp_path, zipped({path: "x"}))
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a.zip", "out"]


def test_a_link_over_a_folder_is_told_by_its_name_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="'l' would be laid out twice") as caught:
        unpack(tmp_path, zipped({"l": "/etc", "l/owned": "x"}, {"l": 0o120777}))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "modes"),
    [
        ({"l": "/etc/passwd"}, {"l": 0o120777}),
        ({"l": "../x"}, {"l": 0o120777}),
        ({"a/l": "b/../../../x"}, {"a/l": 0o120777}),
        ({"l": "/etc", "l/owned": "x"}, {"l": 0o120777}),
        ({"l": "..", "l/m/n": "y"}, {"l": 0o120777, "l/m/n": 0o120777}),
        ({"f": ""}, {"f": stat.S_IFIFO | 0o644}),
        ({"a": "x", "a/b": "y"}, {}),
        ({"A": "x", "./A": "y"}, {}),
    ],
)
def test_links_that_lead_out_and_whatever_is_no_file_are_refused(
    tmp_path: Path, files: dict[str, str | bytes], modes: dict[str, int]
) -> None:
    with pytest.raises(InvalidError):
        unpack(tmp_path, zipped(files, modes))
    assert {each.name for each in tmp_path.iterdir()} == {"a.zip", "out"} and not Path("/etc/owned").exists()


def test_a_bomb_is_stopped_whatever_it_says_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped({f"f{number}": b"\0" * 1_000_000 for number in range(30)})
    assert len(data) < 50_000
    lying = data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(InvalidError):
        unpack(tmp_path, lying)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/a.zip").write_bytes(data)
    with pytest.raises(InvalidError, match="Lambda's limit"):
        archives.unpack(tmp_path / "b/a.zip", tmp_path / "b", Room(bytes=10_000_000))
    assert sum(each.stat().st_size for each in (tmp_path / "b").iterdir()) < 12_000_000


def test_too_many_files_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    (tmp_path / "many.zip").write_bytes(zipped({f"f{number}": "" for number in range(501)}))
    with pytest.raises(InvalidError, match="more than the 50,000 files"):
        archives.unpack(tmp_path / "many.zip", tmp_path, Room(entries=500))
    assert Room().entries == 50_000
    end = zipped({"a": ""})[:-10] + (archives.DIRECTORY_BYTES_MAX + 1).to_bytes(4, "little") + b"\0" * 6
    (tmp_path / "a.zip").write_bytes(end)
    with pytest.raises(InvalidError, match="more than the 50,000 files"):
        archives.unpack(tmp_path / "a.zip", tmp_path, Room())


@pytest.mark.parametrize("damage", [b"", b"PK\5\6", b"no zip at all", zipped({"a": "x"})[:-30], os.urandom(100_000)])
def test_what_is_no_zip_is_said_to_be_none(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(InvalidError, match="zip"):
        unpack(tmp_path, damage)


def test_damaged_content_is_noticed(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": os.urandom(1000)}))
    data[200] ^= 0xFF
    with pytest.raises(InvalidError, match="cannot be unpacked"):
        unpack(tmp_path, bytes(data))
    assert zipfile.is_zipfile(tmp_path / "a.zip")
