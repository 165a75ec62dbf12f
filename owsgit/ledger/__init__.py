"""From commits to a trusted State.

Reads git objects (never a checkout), checks trees, commits, JSON, signatures and permissions, and moves `main`. What
lives here knows git and the model; it knows nothing of nodes, services, HTTP or processes other than git itself.
"""
