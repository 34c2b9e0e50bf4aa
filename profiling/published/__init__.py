"""Published measurements: their runs, replayed in the twin with the rig's known artefacts, and scored.

`runs` reads the tables, `replay` plays a run with the corrections of `frontend` and `monitor`, `fidelity` compares.
"""
