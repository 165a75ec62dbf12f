"""Code in, running workers out: code folders, sandboxes, limits, the workers' protocol, pools and logs.

Knows nothing of git, of JSON infra files or of HTTP. A runtime offers workers; a pool keeps them warm, bounded, and
replaced on error.
"""
