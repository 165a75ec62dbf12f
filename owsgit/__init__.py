"""owsgit: Open Web Services on git.

This module stays almost empty on purpose: every git hook and every command line starts by importing it.
"""

__version__ = "0.1.0"
