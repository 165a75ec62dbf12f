"""The words of PartiQL statements, and where they are."""

import re
from typing import NamedTuple

from owsgit.services.tables.errors import ValidationError

STATEMENT_MAX = 8192
"""Characters of a statement."""

WORD, NAME, TEXT, NUMBER, END = "a word", "a quoted name", "a string", "a number", "the end"

_RESERVED = """
ABSOLUTE ACTION ADD ALL ALLOCATE ALTER AND ANY ARE AS ASC ASSERTION AT AUTHORIZATION AVG BEGIN BETWEEN BIT BIT_LENGTH
BY CASCADE CASCADED CASE CAST CATALOG CHAR CHARACTER CHARACTER_LENGTH CHAR_LENGTH CHECK CLOSE COALESCE COLLATE
COLLATION COLUMN COMMIT CONNECT CONNECTION CONSTRAINT CONSTRAINTS CONTINUE CONVERT CORRESPONDING COUNT CREATE CROSS
CURRENT CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURSOR DATE DEALLOCATE DEC DECIMAL DECLARE DEFAULT
DEFERRABLE DEFERRED DELETE DESC DESCRIBE DESCRIPTOR DIAGNOSTICS DISCONNECT DISTINCT DOMAIN DOUBLE DROP ELSE END ESCAPE
EXCEPT EXCEPTION EXEC EXECUTE EXISTS EXTERNAL EXTRACT FALSE FETCH FIRST FLOAT FOR FOREIGN FOUND FROM FULL GET GLOBAL
GO GOTO GRANT GROUP HAVING IDENTITY IMMEDIATE IN INDICATOR INITIALLY INNER INPUT INSENSITIVE INSERT INT INTEGER
INTERSECT INTERVAL INTO IS ISOLATION JOIN KEY LANGUAGE LAST LEFT LEVEL LIKE LOCAL LOWER MATCH MAX MIN MISSING MODULE
NAMES NATIONAL NATURAL NCHAR NEXT NO NOT NULL NULLIF NUMERIC OCTET_LENGTH OF ON ONLY OPEN OPTION OR ORDER OUTER OUTPUT
OVERLAPS PAD PARTIAL PIVOT POSITION PRECISION PREPARE PRESERVE PRIMARY PRIOR PRIVILEGES PROCEDURE PUBLIC READ REAL
REFERENCES RELATIVE REMOVE RESTRICT RETURNING REVOKE RIGHT ROLLBACK ROWS SCHEMA SCROLL SECTION SELECT SESSION
SESSION_USER SET SIZE SMALLINT SOME SPACE SQL SQLCODE SQLERROR SQLSTATE SUBSTRING SUM SYSTEM_USER TABLE TEMPORARY THEN
TIME TIMESTAMP TO TRANSACTION TRANSLATE TRANSLATION TRIM TRUE UNION UNIQUE UNKNOWN UNPIVOT UPDATE UPPER USAGE USER
USING VALUE VALUES VARCHAR VARYING VIEW WHEN WHENEVER WHERE WITH WORK WRITE ZONE
"""
KEYWORDS = frozenset(_RESERVED.split())
"""The reserved words of SQL-92 and those that PartiQL adds: no names, unless they are quoted."""

_TOKEN = re.compile(
    r"(\s+|--[^\r\n]*|/\*.*?\*/)"
    r"|([A-Za-z_$][A-Za-z0-9_$]*)"
    r"|((?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|('(?:[^']|'')*')"
    r'|("(?:[^"]|"")*")'
    r"|(<<|>>|<>|!=|<=|>=|[=<>()\[\]{}.,:;?*+-])",
    re.DOTALL,
)


class Token(NamedTuple):
    """`kind`: a keyword, a sign, or one of the names above. `text`: what it says, without quotes."""

    kind: str
    text: str
    start: int
    end: int


def malformed(problem: str = "") -> ValidationError:
    return ValidationError(f"Statement wasn't well formed, can't be processed: {problem}")


def tokens(statement: str) -> list[Token]:
    """All tokens, and END. Comments are nothing."""
    if len(statement) > STATEMENT_MAX:
        raise ValidationError(f"a statement has at most {STATEMENT_MAX} characters")
    try:
        statement.encode()
    except UnicodeEncodeError:
        raise malformed() from None
    found = []
    at = 0
    while at < len(statement):
        match = _TOKEN.match(statement, at)
        if match is None:
            raise malformed()
        group, at = match.lastindex, match.end()
        if group == 1:
            continue
        found.append(Token(*_read(group, match[0]), match.start(), at))
    found.append(Token(END, "", at, at))
    return found


def _read(group: int | None, text: str) -> tuple[str, str]:
    """The kind of a token and what it says."""
    if group == 2:
        upper = text.upper()
        return (upper if upper in KEYWORDS else WORD), text
    if group == 3:
        return NUMBER, text
    if group == 4:
        return TEXT, text[1:-1].replace("''", "'")
    if group == 5:
        return NAME, text[1:-1].replace('""', '"')
    return ("<>" if text == "!=" else text), text


def position(statement: str, token: Token) -> str:
    """Where a token is, as DynamoDB tells: its line, its column, and its length."""
    line = statement.count("\n", 0, token.start) + 1
    column = token.start - (statement.rfind("\n", 0, token.start) + 1) + 1
    return f"{line}:{column}:{token.end - token.start}"
