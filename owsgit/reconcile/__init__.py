"""From the desired state to what runs: plan, apply, observe, retry.

Hooks, timers and peers only wake the loop; it always reads `main` itself. Knows resources and handlers, not services.
"""
