"""The public names of `placement.report` and where each comes from."""

from .document import failure as failure, to_csv as to_csv, to_json as to_json, write_outputs as write_outputs
from .html import render as render
from .result import Result as Result
from .table import print_report as print_report
