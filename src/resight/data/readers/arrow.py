"""Read tables (CSV and Parquet) whose columns are text, numbers and times, whoever made them."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from resight.errors import DatasetError

TIME: Final = "time"  # the only column of numbers; it is in seconds
_FAULTS: Final = (pa.ArrowException, csv.Error, OSError, ValueError, OverflowError, RecursionError)


def read_arrow(path: Path) -> Any:
    """Read a CSV or Parquet file. Every column of a CSV except `time` is text, and an empty cell is unknown.

    Raises:
        DatasetError: the file does not exist, is not of the format that its name says, or has a column twice.
    """
    try:
        if not path.is_file():
            raise DatasetError(f"there is no table at {path}")
        table = _read_csv(path) if path.suffix == ".csv" else pq.ParquetFile(path).read()
    except _FAULTS as error:
        raise DatasetError(f"{path} cannot be read as a table: {_one_line(error)}") from error
    doubled = [name for name, count in Counter(table.column_names).items() if count > 1]
    if doubled:
        raise DatasetError(f"{path} has the column {doubled[0]!r:.60} twice")
    return table


def plain_rows(table: Any, path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table as text, with `time` as a finite number; None where unknown.

    Raises:
        DatasetError: a column is neither text nor numbers, or a value is not finite or no valid text.
    """
    columns = [plain_column(table.column(name), name, path).to_pylist() for name in table.column_names]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def plain_column(column: Any, name: str, path: Path) -> Any:
    """Return a column as text, or `time` as finite float64; an empty text is unknown.

    Raises:
        DatasetError: as `plain_rows`.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (pa.types.is_null(kind) or is_number or (is_text and name != TIME)):
        wanted = "a number of seconds" if name == TIME else "text or whole numbers"  # words: ok
        raise DatasetError(f"{path} has a column {name} of type {str(kind)[:60]}, and must have {wanted} there")
    try:
        if name == TIME:
            values = column.cast(pa.float64())
            _require_finite(values, path)
            return values
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            column = column.cast(pa.int64())  # an error where a number is not whole
        text = column.cast(kind).cast(pa.string()) if is_text else column.cast(pa.string())
        text.validate(full=True)  # that it is UTF-8
        return pc.if_else(pc.equal(text, ""), None, text)  # pyright: ignore[reportAttributeAccessIssue]
    except _FAULTS as error:
        raise DatasetError(f"{path} has an unusable value in the column {name}: {_one_line(error)}") from error


def _read_csv(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8-sig") as file:
        names = next(csv.reader(file), [])
    types = {name: pa.float64() if name == TIME else pa.string() for name in names}
    options = pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    return pa_csv.read_csv(path, convert_options=options)


def _require_finite(seconds: Any, path: Path) -> None:
    infinite = seconds.filter(pc.invert(pc.is_finite(seconds)))  # pyright: ignore[reportAttributeAccessIssue]
    if len(infinite):
        raise DatasetError(f"{path} has the time {infinite[0].as_py()}; leave it empty where it is unknown")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
