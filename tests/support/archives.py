"""Zip files and wheels, made by hand."""

import base64
import hashlib
import io
import zipfile


def zipped(files: dict[str, str | bytes], modes: dict[str, int] | None = None) -> bytes:
    """A zip file; `modes` are st_mode values, symlinks among them."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for path, content in files.items():
            info = zipfile.ZipInfo(path)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(path, 0o100644) << 16
            file.writestr(info, content)
    return data.getvalue()


def wheel(name: str, version: str = "1.0", requires: str = "", **modules: str) -> tuple[str, bytes]:
    """The file name and the content of a pure wheel with the modules given, or one that says its version."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files: dict[str, str | bytes] = {
        **{f"{module}.py": code for module, code in (modules or {name: f"version = {version!r}\n"}).items()},
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    return f"{name}-{version}-py3-none-any.whl", zipped(files)


def _digest(content: str | bytes) -> str:
    data = content if isinstance(content, bytes) else content.encode()
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
