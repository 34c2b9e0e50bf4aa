"""What a run leaves behind: `result` in memory, its `document` and `figures` as files, `html` and `table` for people.

    result = place("adapters.csv", "latency")
    result.write("out")

`words` says the same in sentences for both; `progress` shows how far a run is.
"""

from __future__ import annotations

import lazy_loader

# The list is `__init__.pyi`: what a type checker reads is what is exported.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
