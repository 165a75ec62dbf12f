"""The spec of a layer: `layers/<name>/layer.json`, its files beside it."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from owsgit.model.spec import Spec

_RUNTIME = re.compile(r"python(3\.[0-9]{1,2})?|nodejs([0-9]{2}\.x)?|provided(\.al2|\.al2023)?")


def _runtime(name: str) -> str:
    if not _RUNTIME.fullmatch(name):
        raise ValueError(
            "layers are for 'python', 'python3.N', 'nodejs', 'nodejsN.x', 'provided' and 'provided.al2023'"
        )
    return name


def _family(runtime: str) -> str:
    return re.split(r"[0-9.]", runtime)[0]


class LayerSpec(Spec):
    """Files that functions share. They lie at /opt, as on AWS: python/, nodejs/node_modules/, bin/, lib/.

    A zip at the root of the layer's folder is unpacked there.
    """

    description: str | None = Field(None, max_length=256, description="What the layer is for.")
    compatible_runtimes: list[Annotated[str, AfterValidator(_runtime)]] = Field(
        [],
        max_length=15,
        description="The runtimes that it is for; others cannot name it. Without any it is for all. 'python' and "
        "'nodejs' are all of their versions.",
    )
    license_info: str | None = Field(None, max_length=512, description="The licence: an SPDX name, an address, a text.")

    def lacks(self, need: str) -> str | None:
        """Whether a function with the runtime `need` may have the layer."""
        if not self.compatible_runtimes or any(_fits(need, each) for each in self.compatible_runtimes):
            return None
        return f"it is for {', '.join(self.compatible_runtimes)} (compatibleRuntimes), not for {need}"


def _fits(runtime: str, listed: str) -> bool:
    """The bare name of a family is any of its versions: only a node knows its own."""
    family = _family(runtime)
    return runtime == listed or (family == _family(listed) and family in (runtime, listed))
