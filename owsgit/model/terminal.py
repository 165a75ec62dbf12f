"""Text that comes from commits, code and clients, made safe to print: it cannot move the cursor or draw."""


def safe(text: str, characters_max: int | None = None) -> str:
    """`text` on one line, every character that does not print shown as '?'."""
    return "".join(char if char.isprintable() else "?" for char in text)[:characters_max]


def safe_lines(text: str) -> str:
    """As `safe`, keeping line ends and tabs."""
    return "\n".join("\t".join(map(safe, line.split("\t"))) for line in text.split("\n"))
