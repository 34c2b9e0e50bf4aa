"""The physics of the workload at hand as linear pieces, for solvers that need them."""
