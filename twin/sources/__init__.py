"""Makes workloads: from tables and logs (`adapter_file`, `access_log`, `rate_file`), `traces`, a few numbers.

`estimates` turns recorded requests into rates, burstiness and lengths; `table`, `text_file` and `timestamps` read files
so that an error names its line.
"""
