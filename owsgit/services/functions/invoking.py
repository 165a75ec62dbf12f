"""The way of an invocation to what is deployed, which every request to a function goes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from owsgit.model.resource import Resource
from owsgit.model.service import Answer, Invocation
from owsgit.runtime.budget import ThrottledError
from owsgit.runtime.metrics import Metrics
from owsgit.services.functions.aliases import Qualified
from owsgit.services.functions.deployment import Deployment


class Invoker:
    """Invokes functions and versions of them."""

    def __init__(
        self,
        deployed: Mapping[str, Deployment],
        wanted: Mapping[str, Resource],
        metrics: Metrics,
        find: Callable[[Qualified], Awaitable[Deployment]],
    ) -> None:
        """`deployed` by unqualified name; `find` starts what is not among them. Of what is not `wanted`, nothing is
        counted."""
        self._deployed, self._wanted, self._metrics, self._find = deployed, wanted, metrics, find

    async def invoke(self, name: str, invocation: Invocation) -> Answer:
        """`name` may be qualified. Raises UnavailableError, ThrottledError, InvalidError; what the function does wrong
        is in the Answer. Who is cancelled does not end what the function does."""
        found = self._deployed.get(name)  # that is how most are named
        while found is None or found.pool.closed:  # it may have to be started, whoever goes away meanwhile
            found = await asyncio.shield(self._find(Qualified.parse(name)))
        function = found.resource.name
        metrics = self._metrics.function(function) if function in self._wanted else None
        try:
            call = found.pool.submit(invocation)
            answer = await call.answer
        except ThrottledError:
            if metrics is not None:
                metrics.throttled()
            raise
        except asyncio.CancelledError:
            call.unheard = metrics.answered if metrics is not None else None
            raise
        if metrics is not None:
            metrics.answered(answer)
        return answer
