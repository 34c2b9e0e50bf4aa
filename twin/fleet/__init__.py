"""A placement as a whole: a router before many servers, some of which may die and come back.

`simulate` first; a `node` is one server while it is simulated, `routing` decides who gets a request, `result` sums up.
"""
