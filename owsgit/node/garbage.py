"""What Python's garbage collector does in the processes of a node."""

import gc


def settle_down() -> None:
    """Have what a process is made of left out of garbage collections from now on: going through all of it holds up its
    requests for tens of milliseconds each time, and finds nothing. Young garbage is looked for less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
