"""Calibrations of GPUs and models that nobody measured here: operator times, data sheets and arithmetic.

`target` says what is derived; `architecture` and `device` describe what serves; `operators` reads measured operator
times, `work` is the roofline that stands in where there are none; `kernels` makes a step-time law of either;
`constants` adds what was learned from measured servers, `memory` what fits and loads, `derivation` puts it together
with intervals, `posterior` fits `runs`.
"""
