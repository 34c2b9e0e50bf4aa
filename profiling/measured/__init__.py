"""From a recording to a calibration, and how well the twin replays what the fit has not seen.

`rows` makes equations of steps, `fitting` solves them from a prior, `fit` assembles and reports, `validate` replays.
"""
