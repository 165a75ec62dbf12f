"""What keeps the data of a project's resources: `engines` in `project.json`."""

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from owsgit.model.errors import Problem
from owsgit.model.spec import Document, Name, PlacedError, Reference

ADDRESS_CHARACTERS_MAX = 2000
PORTS = 1 << 16
SHOWN_MAX = 5
"""Tables that an error names."""

_UNESCAPED = (
    "the port in an address of a database is a number up to 65535; in a name or a password, the characters "
    "/ ? # [ ] @ : % are written as %2F %3F %23 %5B %5D %40 %3A %25"
)


Durability = Literal["full", "relaxed"]


class SqliteEngine(Document):
    """Files on the node that a table is on."""

    type: Literal["sqlite"] = Field("sqlite", description="`sqlite`: a file for each table, on its node.")
    durability: Durability = Field(
        "full",
        description="What a write that was answered survives. full: the loss of power. relaxed: the end of the node's "
        "process by whatever it is; the loss of power may take the last seconds of writes, and damages nothing.",
    )


class PostgresqlEngine(Document):
    """A PostgreSQL server, of which every node serves every table."""

    type: Literal["postgresql"] = Field(description="`postgresql`: a server that all nodes reach.")
    url: str | None = Field(
        None,
        description="The database, as libpq takes it, without a password: "
        "`postgresql://user@host:5432/database?sslmode=verify-full`.",
    )
    secret: Name | None = Field(
        None, description="Instead of the url: the secret that holds it, with the password (secrets/<name>.json)."
    )
    schema_name: str = Field(
        "owsgit",
        alias="schema",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="The schema in the database that is the project's alone. It is made when it is not there.",
    )
    durability: Durability = Field(
        "full",
        description="What a write that was answered survives. full: the end of the server, whatever its own default is "
        "(synchronous_commit). relaxed: the end of nodes; that of the server may take the last second of writes, and "
        "damages nothing.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.url is None) == (self.secret is None):
            raise ValueError("either a url or a secret says which database it is")
        if self.schema_name.startswith("pg_"):
            raise PlacedError("names of schemas that begin with pg_ are PostgreSQL's own", "schema")
        if self.url is not None:
            try:
                check_address(self.url)
                has_password = _has_password(self.url)
            except ValueError as error:
                raise PlacedError(str(error), "url") from None
            if has_password:
                raise PlacedError(
                    "a password does not belong into the ledger, which everybody with a clone reads, and this one is "
                    'known by now: change it, seal the whole url with owsgit secret set NAME, and write "secret": '
                    '"NAME" instead of the url',
                    "url",
                )
        return self


def check_address(text: str) -> None:
    """Raises ValueError, which does not tell the text, for what is no address of a PostgreSQL database."""
    if len(text) > ADDRESS_CHARACTERS_MAX or not text.isprintable():
        raise ValueError(f"an address of a database has at most {ADDRESS_CHARACTERS_MAX} printable characters")
    try:
        parts = urlsplit(text)
    except ValueError:  # its text has what it found wrong
        raise ValueError(_UNESCAPED) from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("an address of a database is such as postgresql://user@host:5432/database?sslmode=verify-full")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts]
    if not all(port == "" or (port.isdecimal() and 0 < int(port) < PORTS) for port in ports):
        raise ValueError(_UNESCAPED)


def _has_password(text: str) -> bool:
    parts = urlsplit(text)
    named = {name.lower() for name in parse_qs(parts.query, keep_blank_values=True)}
    return bool({"password", "sslpassword"} & named) or any(
        ":" in part for part in parts.netloc.rpartition("@")[0].split(",")
    )


def _type(value: Any) -> str:
    found = value.get("type", "sqlite") if isinstance(value, dict) else getattr(value, "type", "sqlite")
    return "postgresql" if found == "postgresql" else "sqlite"


TableEngine = Annotated[
    Annotated[SqliteEngine, Tag("sqlite")] | Annotated[PostgresqlEngine, Tag("postgresql")], Discriminator(_type)
]


class Engines(Document):
    """What keeps the data of a project, by kind of resource."""

    tables: TableEngine = Field(
        default_factory=lambda: SqliteEngine.model_validate({}), description="What keeps the items of tables."
    )

    @field_validator("tables", mode="before")
    @classmethod
    def _is_known(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type", "sqlite") not in ("sqlite", "postgresql"):
            raise PlacedError("what keeps tables is sqlite or postgresql", "type")
        return value

    def references(self) -> Iterator[Reference]:
        if isinstance(self.tables, PostgresqlEngine) and self.tables.secret is not None:
            yield Reference("secret", self.tables.secret, "$.engines.tables.secret")

    def is_shared(self, kind: str) -> bool:
        """Whether resources of a kind are on no node, as every node reaches what keeps their data."""
        return kind == "table" and isinstance(self.tables, PostgresqlEngine)

    def problems_after(self, before: "Engines", tables: Collection[str], file: str) -> Iterator[Problem]:
        """What is wrong if there were `tables`: their items stay where they are."""
        if tables and _place(self.tables) != _place(before.tables):
            names = ", ".join(sorted(tables)[:SHOWN_MAX]) + (", ..." if len(tables) > SHOWN_MAX else "")
            yield Problem(
                f"{len(tables)} tables are kept by {before.tables.type} ({names}), and their items do not move along",
                file,
                "$.engines.tables",
                "export their items, delete them and push; change the engine and push; then add them, and import",
            )


def _place(engine: SqliteEngine | PostgresqlEngine) -> tuple[str, ...]:
    """Where the data is: not at which address, which may change as a server moves."""
    return (engine.type, engine.schema_name) if isinstance(engine, PostgresqlEngine) else (engine.type,)
