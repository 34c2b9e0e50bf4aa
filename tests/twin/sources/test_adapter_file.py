"""Adapter files: what is written is what is planned for, and what is wrong is pointed at."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from twin.errors import InputError
from twin.sources.adapter_file import OPTIONAL, REQUIRED, read_adapters, read_frame
from twin.workload.adapter import Adapter, Lengths, Slo
from twin.workload.rates import OnOff

HEADER = ",".join(REQUIRED)
GOOD = f"{HEADER}\na,8,0.5,100,200\nb,16,1.5,300,50\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "adapters.csv"


def read_text(file: Path, text: str) -> tuple[Adapter, ...]:
    file.write_text(text, encoding="utf-8")
    return read_adapters(file).adapters


def refused(file: Path, content: str | bytes) -> InputError:
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content, encoding="utf-8", newline="")
    with pytest.raises(InputError) as caught:
        read_adapters(file)
    assert str(file) in caught.value.where
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return caught.value


def test_values_arrive_and_spreads_are_the_published_ones(file: Path) -> None:
    first, second = read_text(file, GOOD)
    assert first == Adapter("a", 8, 0.5, Lengths(100, 1.1), Lengths(200, 1.06))
    assert (second.adapter_id, second.rank, second.rate_req_per_s) == ("b", 16, 1.5)
    assert any("prompt CV 1.1" in note for note in read_adapters(file).notes)


def test_optional_columns_arrive_in_any_order_and_empty_cells_are_defaults(file: Path) -> None:
    header = ",".join(reversed([*REQUIRED, *(c for c in OPTIONAL if c != "tenant")]))
    full = "/data/a,team-1,0.25,90,30,lognormal,-0.3,gpu-1,20,45,40,2.5,0.4,0.9,0.8,3,200,100,0.5,8,a"
    first, second = read_text(file, f"{header}\n{full}\n,,,,,,,,,,,,,,,,50,30,1.5,16,b\n")
    prompt, output = Lengths(100, 0.8, "lognormal"), Lengths(200, 0.9, "lognormal")
    process = OnOff(30, 90, 0.25, group="team-1")
    slo = Slo(2.5, itl_mean_ms=40, tpot_mean_ms=45, e2e_mean_s=20)
    assert first == Adapter("a", 8, 0.5, prompt, output, 3.0, 0.4, -0.3, slo, "gpu-1", process)
    assert second == Adapter("b", 16, 1.5, Lengths(30, 1.1), Lengths(50, 1.06))
    assert (first.path, second.path) == ("/data/a", None)


def test_defaults_can_be_chosen(file: Path) -> None:
    file.write_text(GOOD)
    adapter = read_adapters(
        file, default_arrival_cv=2.0, default_prompt_cv=0.5, default_output_cv=0.6, default_length_correlation=-0.4
    ).adapters[0]
    assert (adapter.arrival_cv, adapter.prompt_tokens.cv, adapter.output_tokens.cv) == (2.0, 0.5, 0.6)
    assert adapter.length_correlation == -0.4


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r").encode(),
        GOOD.rstrip().encode(),
        GOOD.replace("\n", "\n\n").encode(),
        (GOOD + ",,,,\n  \n").encode(),
        GOOD.replace("a,8", " a , 8 ").encode(),
        GOOD.replace("a,8", '"a","8"').encode(),
        GOOD.replace(",8,", ",8.0,").encode(),
        gzip.compress(GOOD.encode()),
        bz2.compress(GOOD.encode()),
        lzma.compress(GOOD.encode()),
        GOOD.replace(",", ";").encode(),
        GOOD.replace(",", ";").replace(".", ",").encode(),
        GOOD.replace(",", "\t").encode(),
        b"sep=;\r\n" + GOOD.replace(",", ";").encode(),
        GOOD.encode("utf-16"),
        GOOD.replace("\n", ",\n").encode(),
        HEADER.replace("_", " ").title().encode() + GOOD[len(HEADER) :].encode(),
    ],
    ids=[
        "BOM",
        "CRLF",
        "CR",
        "no-newline",
        "blank-lines",
        "empty-rows",
        "blanks",
        "quotes",
        "8.0",
        "gzip",
        "bz2",
        "xz",
        "semicolons",
        "decimal-commas",
        "tabs",
        "sep=",
        "UTF-16",
        "trailing-comma",
        "case",
    ],
)
def test_harmless_variants_read_alike(file: Path, content: bytes) -> None:
    file.write_text(GOOD)
    plain = read_adapters(file)
    file.write_bytes(content)
    assert read_adapters(file) == plain


@given(
    st.lists(
        st.tuples(st.integers(0, 256), st.floats(1e-6, 1e3), st.floats(1, 1e5), st.floats(1, 1e5)),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]]
) -> None:
    file = tmp_path_factory.mktemp("adapters") / "a.csv"
    lines = [f"a{i}," + ",".join(repr(v) for v in row) for i, row in enumerate(rows)]
    adapters = read_text(file, "\n".join([HEADER, *lines]))
    found = [(a.rank, a.rate_req_per_s, a.prompt_tokens.mean, a.output_tokens.mean) for a in adapters]
    assert found == rows


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        ("c,8.5,1,10,10", "rank", "8.5"),
        ("c,-8,1,10,10", "rank", "-8"),
        ("c,eight,1,10,10", "rank", "eight"),
        ("c,,1,10,10", "rank", "empty"),
        ("c,inf,1,10,10", "rank", "inf"),
        ("c,8,0,10,10", "rate_req_per_s", "'0'"),
        ("c,8,-0.5,10,10", "rate_req_per_s", "-0.5"),
        ("c,8,nan,10,10", "rate_req_per_s", "nan"),
        ("c,8,1 req,10,10", "rate_req_per_s", "1 req"),
        ('c,8,"0,5",10,10', "rate_req_per_s", "0,5"),
        ("c,8,1,0,10", "prompt_tokens", "'0'"),
        ("c,8,1,-3,10", "prompt_tokens", "-3"),
        ("c,8,1,10,x", "output_tokens", "x"),
        (",8,1,10,10", "adapter_id", "empty"),
        ("  ,8,1,10,10", "adapter_id", "empty"),
    ],
)
def test_a_wrong_value_is_named_with_line_and_column(file: Path, row: str, column: str, value: str) -> None:
    error = refused(file, GOOD.replace("b,16", "\nb,16") + row + "\n")
    assert value in error.problem
    assert "line 5" in error.where, "line 3 is blank"
    assert repr(column) in error.where


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("arrival_cv", "0"),
        ("arrival_cv", "21"),
        ("prompt_cv", "-1"),
        ("output_cv", "inf"),
        ("cached_prompt_fraction", "1"),
        ("cached_prompt_fraction", "-0.1"),
        ("slo_ttft_p99_s", "0"),
        ("slo_ttft_p99_s", "fast"),
        ("slo_itl_mean_ms", "0"),
        ("slo_tpot_mean_ms", "-3"),
        ("slo_e2e_mean_s", "inf"),
        ("length_correlation", "-1.1"),
    ],
)
def test_a_wrong_optional_value_is_named_with_line_and_column(file: Path, column: str, value: str) -> None:
    error = refused(file, f"{HEADER},{column}\na,8,1,10,10,\nb,8,1,10,10,{value}\n")
    assert repr(value) in error.problem
    assert f"line 3, column {column!r}" in error.where


def test_a_correlation_that_the_spreads_cannot_have_is_refused(file: Path) -> None:
    error = refused(
        file, f"{HEADER},prompt_cv,output_cv,length_correlation\na,8,1,10,10,2,1,-0.4\nb,8,1,10,10,2,1,-0.6\n"
    )
    assert "length correlation -0.6" in error.problem
    assert "line 3" in error.where
    assert "above -0.500" in error.remedy


def test_line_numbers_count_lines_and_not_rows(file: Path) -> None:
    """A quoted cell may span lines, and blank lines count."""
    error = refused(file, f'{HEADER}\n"two\nlines",8,1,10,10\n\nb,8,x,10,10\n')
    assert "line 5" in error.where


@pytest.mark.parametrize(
    ("row", "fields"), [("c,8,1,10", 4), ("c,8,1,10,10,10", 6), ("c", 1), ("c,8,0,5,10,10", 6), ("c;8;1;10;10", 1)]
)
def test_too_many_or_too_few_fields_are_refused(file: Path, row: str, fields: int) -> None:
    error = refused(file, f"{GOOD}{row}\n")
    assert f"{fields} fields" in error.problem
    assert "line 4" in error.where


def test_a_duplicate_is_named_with_both_lines(file: Path) -> None:
    error = refused(file, GOOD + "\na,8,1,10,10\n")
    assert "'a'" in error.problem
    assert "on line 2 and line 5" in error.problem
    assert "tenant" in error.remedy


def test_an_unknown_column_lists_the_known_ones(file: Path) -> None:
    error = refused(file, f"{HEADER},colour\na,8,1,10,10,red\n")
    assert "'colour'" in error.problem
    assert all(name in error.remedy for name in (*REQUIRED, *OPTIONAL))


def test_a_misspelt_column_is_suggested(file: Path) -> None:
    assert "did you mean 'arrival_cv'" in refused(file, f"{HEADER},arival_cv\na,8,1,10,10,2\n").remedy
    error = refused(file, HEADER.replace("rate_req_per_s", "rate_req_s") + "\na,8,1,10,10\n")
    assert "'rate_req_per_s' is missing" in error.problem
    assert "rename 'rate_req_s'" in error.remedy


@pytest.mark.parametrize("column", REQUIRED)
def test_a_missing_column_is_named(file: Path, column: str) -> None:
    names = [c for c in REQUIRED if c != column]
    error = refused(file, ",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    assert repr(column) in error.problem
    assert "line 1" in error.where


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (HEADER.encode(), "no rows"),
        (f"{HEADER}\n\n".encode(), "no rows"),
        (GOOD.encode("latin-1").replace(b"a,8", b"\xe4,8"), "not UTF-8"),
        (GOOD.encode("utf-16-le"), "zero bytes"),
        (b"PK\x03\x04" + bytes(range(256)), "not a whole packed file"),
        (gzip.compress(GOOD.encode())[:-12], "not a whole packed file"),
        (GOOD.replace("b,16", '"b,16').encode(), "not valid CSV"),
        (GOOD.replace("adapter_id", "rank").encode(), "'rank' appears twice"),
        (GOOD.replace("prompt_tokens", "").encode(), "'prompt_tokens' is missing"),
    ],
)
def test_a_file_of_the_wrong_form_is_refused(file: Path, content: bytes, says: str) -> None:
    assert says in refused(file, content).problem


def test_a_missing_file_a_folder_and_no_file_are_refused(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "none.csv", "does not exist"),
        (tmp_path / "no" / "none.csv", "does not exist either"),
        (tmp_path, "is a folder"),
        ("", "no adapter file"),
        ("x\0y", "is no path"),
    ):
        with pytest.raises(InputError, match=says):
            read_adapters(path)


def test_tenants_of_an_adapter_are_merged(file: Path) -> None:
    rows = "a,x,8,1,100,10,4.0,gpu-1\na,y,8,3,200,10,2.0,gpu-1\nb,x,16,1,10,10,,\n"
    merged, other = read_text(
        file,
        "adapter_id,tenant,rank,rate_req_per_s,prompt_tokens,output_tokens,slo_ttft_p99_s,pinned_gpu\n" + rows,
    )
    assert (merged.rate_req_per_s, merged.prompt_tokens.mean, merged.slo) == (4.0, 175.0, Slo(2.0))
    assert merged.pinned_gpu == "gpu-1"
    assert (other.rate_req_per_s, other.slo) == (1.0, None)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("a,x,8,1,10,10,\na,x,8,1,10,10,\n", "tenant 'x' of adapter 'a' appears twice, on line 2 and line 3"),
        ("a,x,8,1,10,10,\na,y,16,1,10,10,\n", "rank 8 on line 2 and 16 on line 3"),
        ("a,x,8,1,10,10,g1\na,y,8,1,10,10,g2\n", "pinned_gpu 'g1' on line 2 and 'g2' on line 3"),
        ("a,x,8,1,10,10,\na,,8,1,10,10,\n", "tenant is empty"),
    ],
)
def test_tenants_that_contradict_each_other_are_refused(file: Path, rows: str, says: str) -> None:
    header = "adapter_id,tenant,rank,rate_req_per_s,prompt_tokens,output_tokens,pinned_gpu"
    assert says in refused(file, f"{header}\n{rows}").problem


def test_a_frame_is_read_as_its_file_is(file: Path) -> None:
    """Types are kept, names of columns are found as in a file, and the index does not count."""
    frame = pd.DataFrame(
        {"adapter": ["a", "b"], "rank": [8, 16], "rate_req_per_s": [0.5, 1.5], "prompt_tokens": [100, 300.0],
         "output_tokens": ["200", "50"], "slo_ttft_p99_s": [None, 2.0], "pinned_gpu": [None, "gpu1"]},
        index=[7, 7],
    )  # fmt: skip
    frame.to_csv(file, index=False)
    assert read_frame(frame).adapters == read_adapters(file).adapters
    assert read_frame(frame).name == "DataFrame"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rank": [8, -1]}, "the DataFrame, row 2, column 'rank'"),
        ({"adapter_id": ["a", "a"]}, "the DataFrame, row 2, column 'adapter_id'"),
        ({"rate_req_per_s": [0.5, float("nan")]}, "the DataFrame, row 2, column 'rate_req_per_s'"),
        ({"ranks": [8, 8]}, "the DataFrame"),
    ],
)
def test_what_is_wrong_in_a_frame_is_located(changed: dict[str, list[object]], said: str) -> None:
    good = {"adapter_id": ["a", "b"], "rank": 8, "rate_req_per_s": 1.0, "prompt_tokens": 100, "output_tokens": 100}
    with pytest.raises(InputError) as caught:
        read_frame(pd.DataFrame(good | changed))
    assert said in caught.value.where
    with pytest.raises(InputError, match="the DataFrame has no rows"):
        read_frame(pd.DataFrame(good)[:0])
