"""`python -m owsgit` is `owsgit`."""

from owsgit.cli import main

main()
