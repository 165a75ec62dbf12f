"""The spec of a website: `websites/<name>/website.json`, its files beside it."""

from pydantic import Field

from owsgit.model.spec import Spec


class WebsiteSpec(Spec):
    """Static files. They are served by the gateways whose routes name the website, as they are at that commit.

    Files and folders whose names begin with a dot are not served, but for .well-known, nor is website.json.
    """

    description: str | None = Field(None, max_length=1024, description="What the website is.")
