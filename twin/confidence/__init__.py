"""How sure the twin is: fresh seeds, one after the other, until a question is decided.

`decide` answers questions about one column, `comparison` about two; `sequential` holds the statistics, `seeds` the
loop, `intervals` what reports show.
"""
