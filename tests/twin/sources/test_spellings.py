"""Numbers, times and outcomes as people write them: read where they are clear, refused with the remedy where not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from twin.errors import InputError
from twin.sources.adapter_file import read_adapters
from twin.sources.registry import as_form
from twin.sources.requests import read_requests
from twin.sources.tables.layout import Form

#: Time after the start, prompt and output tokens of three requests.
SERVED = [(0.0, 100, 50), (1.5, 200, 10), (4.25, 300, 7)]


@pytest.mark.parametrize(
    ("cells", "options", "span"),
    [
        (["0", "60000"], {"time_unit": "ms"}, 60.0),
        (["1780000000000", "1780000060000"], {}, 60.0),
        (["1780000000000000", "1780000060000000"], {}, 60.0),
        (["46150.5", "46150.75"], {"time_unit": "excel"}, 21_600.0),
        (["46150.5", "46150.75"], {"time_unit": "s"}, 0.25),
        (["1780000000,25", "1780000060,75"], {}, 60.5),
        # The clocks of Berlin go back on 25 October 2026 at three.
        (["2026-10-25T00:00:00", "2026-10-25T12:00:00"], {"time_zone": "Europe/Berlin"}, 13 * 3600.0),
        (["2026-10-25T00:00:00", "2026-10-25T12:00:00"], {}, 12 * 3600.0),
    ],
)
def test_times_are_read_in_their_unit_and_zone(
    tmp_path: Path, cells: list[str], options: Mapping[str, str], span: float
) -> None:
    (tmp_path / "log.csv").write_text(
        "timestamp;adapter_id;prompt_tokens;output_tokens\n" + "".join(f"{cell};a;1;1\n" for cell in cells)
    )
    table = read_requests(tmp_path / "log.csv", as_form(None, None, **options))
    assert table.reading.span_s == pytest.approx(span)


@pytest.mark.parametrize(
    ("cells", "options", "says"),
    [
        (["2026-10-25T02:30:00"], {"time_zone": "Europe/Berlin"}, "no time, or two, in Europe/Berlin"),
        (["0"], {"time_zone": "Mars/Base"}, "'Mars/Base' is no time zone"),
        (["0"], {"time_unit": "fortnights"}, "'fortnights' is no unit"),
        (["1.70E+09"], {}, "rounded the time to 10,000,000 s"),
        (["46150.5"], {}, "look like days of a spreadsheet"),
        (["20/11/2026 10:00"], {}, "ISO 8601"),
    ],
)
def test_times_that_are_not_clear_are_refused(
    tmp_path: Path, cells: list[str], options: Mapping[str, str], says: str
) -> None:
    (tmp_path / "log.csv").write_text(
        "timestamp,adapter_id,prompt_tokens,output_tokens\n" + "".join(f"{cell},a,1,1\n" for cell in cells)
    )
    with pytest.raises(InputError, match=says):
        read_requests(tmp_path / "log.csv", as_form(None, None, **options))


@pytest.mark.parametrize(
    ("cells", "decimal", "values"),
    [
        (['"1,024"', "96"], None, [1024, 96]),
        (['"1,024,000"'], None, [1_024_000]),
        (["1 024"], None, [1024]),
        (["1.024"], ",", [1024]),
        (["512.0", "5.1e2"], None, [512, 510]),
    ],
)
def test_counts_with_thousands_separators(
    tmp_path: Path, cells: list[str], decimal: str | None, values: list[int]
) -> None:
    (tmp_path / "log.csv").write_text(
        "timestamp,adapter_id,prompt_tokens,output_tokens\n" + "".join(f"{i},a,{c},1\n" for i, c in enumerate(cells))
    )
    assert read_requests(tmp_path / "log.csv", Form(decimal=decimal)).log.prompt_tokens.tolist() == values


def test_a_rate_that_is_two_numbers_is_refused_with_the_option(tmp_path: Path) -> None:
    file = tmp_path / "adapters.csv"
    file.write_text('adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens\na,8,"1,250",10,10\n')
    with pytest.raises(InputError, match="one number with a decimal comma and another") as caught:
        read_adapters(file)
    assert "workload.decimal=','" in caught.value.remedy
    assert read_adapters(file, decimal=",").adapters[0].rate_req_per_s == 1.25
    assert read_adapters(file, decimal=".").adapters[0].rate_req_per_s == 1250


@pytest.mark.parametrize(
    ("column", "cells", "left_out"),
    [
        ("status", ["200", "429", "500"], 2),
        ("status_code", ["200", "201", "404"], 1),
        ("status", ["success", "Failure", "timed out"], 2),
        ("success", ["1", "0", "1"], 1),
        ("success", ["True", "False", ""], 1),
        ("error", ["", "Timeout", "None"], 1),
        ("was_cancelled", ["false", "true", "false"], 1),
        ("cache_hit", ["False", "True", "True"], 2),
        ("errors", ["0", "0", "0"], 0),
    ],
)
def test_columns_that_tell_what_became_of_a_request(
    tmp_path: Path, column: str, cells: list[str], left_out: int
) -> None:
    lines = [f"{t},a,{p},{o},{cell}" for (t, p, o), cell in zip(SERVED, cells, strict=True)]
    file = tmp_path / "log.csv"
    file.write_text("\n".join([f"timestamp,model,prompt_tokens,output_tokens,{column}", *lines]))
    table = read_requests(file, Form())
    assert sum(table.reading.left_out.values()) == left_out
    assert len(table.log) == 3 - left_out


def test_a_status_of_zeros_and_ones_says_nothing(tmp_path: Path) -> None:
    """0 is good for some and bad for others."""
    file = tmp_path / "log.csv"
    file.write_text("timestamp,model,prompt_tokens,output_tokens,status\n0,a,1,1,0\n1,a,1,1,1\n")
    with pytest.raises(InputError, match="status '0' does not say"):
        read_requests(file, Form())
    file.write_text("timestamp,model,prompt_tokens,output_tokens,status\n0,a,0,0,500\n1,a,0,0,500\n")
    with pytest.raises(InputError, match=r"none of the 2 requests .*: 2 failed"):
        read_requests(file, Form())
