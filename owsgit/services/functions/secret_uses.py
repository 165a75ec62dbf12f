"""The secrets of a function, as its workers get them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from owsgit.model.errors import InvalidError, UnavailableError
from owsgit.model.service import SecretValue
from owsgit.services.functions.spec import FunctionSpec


@dataclass(frozen=True)
class SecretUses:
    """The secrets of a function, as its workers get them."""

    variables: dict[str, str] = field(repr=False)
    files: dict[str, bytes] = field(repr=False)

    @classmethod
    def read(cls, spec: FunctionSpec, known: Mapping[str, SecretValue]) -> "SecretUses":
        """Raises UnavailableError, InvalidError; neither tells what a secret is."""
        variables: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for name, use in spec.secrets.items():
            path = f"$.secrets.{name}"
            value = known.get(use.secret)
            if value is None:
                raise UnavailableError(
                    f"the secret {use.secret} is not open on this node", path=path, remedy="owsgit status says why"
                )
            content = value.content if use.json_key is None else _member(value, use.json_key, path)
            if use.as_file:
                files[name] = content
            else:
                variables[name] = _text(content, path)
        return cls(variables, files)


def _member(value: SecretValue, key: str, path: str) -> bytes:
    try:
        found = json.loads(value.content)[key]
    except (ValueError, KeyError, TypeError):
        raise InvalidError(
            f"the secret is not a JSON object with the member {key!r}",
            path=f"{path}.jsonKey",
            remedy="correct the one or the other",
        ) from None
    return (found if isinstance(found, str) else json.dumps(found)).encode()


def _text(content: bytes, path: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidError("the secret is not text, as a variable has to be", path=path, remedy='use "asFile": true')
    return text
