"""The main job, end to end, told step by step: `make demo`."""
