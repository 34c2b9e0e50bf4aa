"""Public request traces as workloads. None of them records adapters: each module says how it maps to them."""
