"""Finds what looks like a secret in files where it can be read, with detect-secrets: for `owsgit validate`.

Detectors of known forms and of telling names (`"DB_PASSWORD": "..."`). Those that look for high entropy are left out: a
ledger is full of keys and fingerprints, which are public. Nothing is looked up on the network.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from owsgit.ledger import changes
from owsgit.ledger.objects import Objects
from owsgit.model.errors import Problem
from owsgit.model.state import State

FILE_BYTES_MAX = 1024 * 1024
LINE_CHARACTERS_MAX = 10_000
FILES_MAX = 20_000
LEFT_OUT = ("Entropy", "IPPublic")
FILTERS = (
    "is_indirect_reference", "is_likely_id_string", "is_not_alphanumeric_string", "is_potential_uuid",
    "is_prefixed_with_dollar_sign", "is_sequential_string", "is_templated_secret",
)  # fmt: skip


def warnings(objects: Objects, tree: str, state: State) -> Iterator[Problem]:
    """Each line of a tree's text files that looks as if a secret stood there. What it is, is never told."""
    from detect_secrets.core import scan  # noqa: PLC0415 - a fifth of a second, for one command
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class  # noqa: PLC0415
    from detect_secrets.settings import transient_settings  # noqa: PLC0415

    known: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
    plugins = [plugin.__name__ for plugin in known]
    used = [{"name": name} for name in plugins if not any(part in name for part in LEFT_OUT)]
    filters = [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in FILTERS]
    names = {secret.name for secret in state.of_kind("secret")}
    with transient_settings({"plugins_used": used, "filters_used": filters}):
        for path, lines in _texts(objects, tree):
            for number, line in enumerate(lines, 1):
                kinds = {each.type for each in scan.scan_line(line) if each.secret_value not in names}
                for kind in sorted(kinds):
                    yield Problem(
                        f"line {number} looks as if a secret stood there ({kind}), for everybody to read",
                        path,
                        remedy="owsgit secret set NAME, and refer to it (function.json: secrets); if it ever was "
                        "pushed, change it where it is used",
                    )


def _texts(objects: Objects, tree: str) -> Iterator[tuple[str, list[str]]]:
    for index, (path, _, oid) in enumerate(changes.files_of(objects, bytes.fromhex(tree))):
        if index >= FILES_MAX:
            return
        if path.startswith("secrets/") or objects.blob_size(oid) > FILE_BYTES_MAX:
            continue
        data = objects.blob(oid, FILE_BYTES_MAX)
        if b"\0" not in data:
            lines = data.decode("utf-8", "replace").split("\n")
            yield path, [line if len(line) <= LINE_CHARACTERS_MAX else "" for line in lines]
