"""What a run leaves behind: `result` in memory, its `document` and `figures` as files, `html` and `table` for people.

`words` says the same in sentences for both; `progress` shows how far a run is.
"""

from placement.report.document import Status, failure, to_csv, to_json, write_outputs
from placement.report.html import render
from placement.report.result import Result

__all__ = ["Result", "Status", "failure", "render", "to_csv", "to_json", "write_outputs"]
