"""From a command line to checked values, for every command; knows no concept of any of them.

`entry` drives Hydra, `schema` reads plain containers into dataclasses with units and ranges, `instantiate` builds the
objects that a `_target_` names, `arguments` checks single values.
"""
