"""HTTP in, calls out: listeners, routing tables, AWS's payload formats.

Receives what it routes to as values (`Target`s); knows nothing of functions, git or the ledger.
"""
