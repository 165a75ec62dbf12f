"""What a resource is: names, ARNs, specs, policies, State, the contract of a service, errors.

Pure: no git, no network, no processes, no clock and no files in here. Everything is a value, or a function of values.
"""
