"""What solvers and reports may know about a column without simulating it.

`features` of a column are sums over its adapters; `planning` is the contract with the solvers (facets and convex
loads), `neural_planning` and `analytic` implement it; `prediction` gives all metrics. NumPy only, no torch.
"""
