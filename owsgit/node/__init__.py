"""A node: the process that serves git over SSH, verifies pushes, reconciles, and runs the services.

`node.py` is the only place where everything is wired together.
"""
