"""One vLLM server before it runs: GPU, model, settings, scheduling rules, and the measured laws of its calibration.

`settings` are vLLM's flags, `calibration` holds the `laws`; `memory` (with `slots`) says what fits, `sharing` and
`roofline` what several servers and large batches cost. A `column` puts adapters on a server.
"""
