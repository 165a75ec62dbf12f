"""The certificate of a port of the node's own: from files, and read again when they change."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from owsgit.gateway import certificates
from owsgit.gateway.certificates import Certificate
from owsgit.model.errors import InvalidError, OwsgitError

LOOK_SECONDS = 2.0
"""How often the files are looked at: two of the cheapest calls to the kernel."""

WHAT = "the certificate of the port for AWS's SDKs"

log = logging.getLogger("owsgit.node")


class OwnCertificate:
    """Of the files that a setting names."""

    def __init__(self, chain: str, key: str, file: str, path: str, host: str = "") -> None:
        """`file` and `path` (JSON) are where the setting is. `host`: what clients know the port by, '' for anything."""
        self._host = host
        self._chain, self._key, self._file, self._path = chain, key, file, path
        self._seen: object = None

    def read(self) -> Certificate:
        """Raises OwsgitError that names the setting. One that has ended, or is for another name, is warned of: clients
        refuse it, not we."""
        self._seen = self._stamp()
        pem = certificates.read_files(self._chain, self._key, self._path)
        found = Certificate.parse(pem, WHAT, self._path)
        try:
            found.check(self._host, WHAT, self._path)
        except InvalidError as error:
            told = "and clients refuse it ($.awsTls.host is the name by which they are told to reach the node)"
            log.warning("%s: %s, %s", self._file, error.problems[0].message, told)
        return found

    async def watch(self, show: Callable[[Certificate], None]) -> None:
        """Have a new one shown. What is not good is told in the log, and what was shown before stays."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._stamp() == self._seen:
                continue
            try:
                show(await asyncio.to_thread(self.read))
            except OwsgitError as error:
                log.warning("%s: %s; the one before is shown", self._file, error.problems[0].message)
            else:
                log.info("a new certificate is shown to AWS's SDKs")

    def _stamp(self) -> object:
        """Changes when the files do, or what links in their place lead to."""
        try:
            found = [Path(each).stat() for each in (self._chain, self._key)]
        except OSError:
            return None
        return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in found]
