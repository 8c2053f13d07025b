"""Pictures as a column of a table: Parquet, Arrow, and a dataset folder that Hugging Face's library saved."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_scripts.archives import reading
from data_scripts.rows import Row, arrow_batches, pixel_dtype
from data_scripts.sources.found import Pictures, Place, labels_of, need, one_of
from lvae_torch.errors import DataError
from lvae_torch.files import known_of, read_json

IMAGE_COLUMNS = ("image", "img", "picture", "photo", "pixels", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label", "cls", "y")


def in_parquet(path: Path, place: Place) -> Pictures:
    """A Parquet file with a column of pictures."""
    _check_pyarrow(path)
    import pyarrow.parquet as pq

    with reading(path):
        file = pq.ParquetFile(path)
        schema, n = file.schema_arrow, file.metadata.num_rows
    return _found(path, "parquet", schema, n, path.name, place, lambda column: file.read([column]).column(column))


def in_arrow(path: Path, place: Place, name: str = "") -> Pictures:
    """An Arrow file or stream with a column of pictures."""
    _check_pyarrow(path)
    import pyarrow as pa

    with reading(path):
        batches = arrow_batches(str(path))
    if not batches:
        raise DataError(f"{path}: has no rows.")
    table = pa.Table.from_batches(batches)
    return _found(path, "arrow", table.schema, table.num_rows, name or path.name, place, table.column)


def is_saved_dataset(folder: Path) -> bool:
    """Whether Hugging Face's ``save_to_disk`` wrote a folder: of one dataset, or of one for each split."""
    return bool(_saved_splits(folder)) or "_data_files" in known_of(folder / "state.json")


def in_saved_dataset(folder: Path, place: Place) -> Pictures:
    """All splits of such a folder."""
    found = Pictures(folder)
    splits = _saved_splits(folder)
    for split in splits:
        if "/" in split or split.startswith("."):
            raise DataError(f"{folder}: a split called {split!r}. Get the set from elsewhere.")
        found.add(_one_saved(folder / split, place), prefix=f"{split}/")
    if not splits:
        found.add(_one_saved(folder, place))
    return found


def _saved_splits(folder: Path) -> Sequence[str]:
    """What ``dataset_dict.json`` names; nothing where there is none, or one of another program."""
    splits = known_of(folder / "dataset_dict.json").get("splits")
    return splits if isinstance(splits, list) and all(isinstance(split, str) for split in splits) else ()


def _one_saved(folder: Path, place: Place) -> Pictures:
    state, found = read_json(folder / "state.json"), Pictures(folder)
    try:
        files = [str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}/state.json: names no files of data. Save the set again.") from error
    if state.get("_indices_data_files"):
        raise DataError(f"{folder}: a selection of other files. Save it with flatten_indices().save_to_disk(...).")
    for file in files:
        if Path(file).name != file:
            raise DataError(f"{folder}/state.json: names a file outside of its folder. Get the set from elsewhere.")
        found.add(in_arrow(folder / file, place, name=Path(file).stem))
    return found


def _found(
    path: Path, kind: str, schema: Any, n: int, name: str, place: Place, column_of: Any
) -> Pictures:  # fmt: skip
    key = _image_column(path, schema, place.key)
    modified = path.stat().st_mtime_ns
    names = [f"{name}/{row}" for row in range(n)]
    spans = {inner: Row(kind, str(path), key, row, 0, modified) for row, inner in enumerate(names)}
    place.account.n_seen += n
    found = Pictures(path, dict(spans))
    label = next((c for c in LABEL_COLUMNS if c in schema.names and _is_label(schema.field(c).type)), "")
    if label:
        with reading(path, label):
            values = column_of(label).to_pylist()
        found.labels.update(labels_of(names, values))
        found.label_names[:] = _class_names(schema, label)
    return found


def _image_column(path: Path, schema: Any, asked: str) -> str:
    able = [field.name for field in schema if _may_be_pictures(field.type)]
    named = [name for name in able if name.lower() in IMAGE_COLUMNS]
    return one_of(named if not asked and len(named) == 1 else able, asked, path, "column")


def _may_be_pictures(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return is_bytes or pixel_dtype(kind) is not None


def _is_label(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):  # as pandas writes categories
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _class_names(schema: Any, label: str) -> Sequence[str]:
    """What Hugging Face's library notes beside the schema."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = told["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return list(map(str, names)) if isinstance(names, list) else []


def _check_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise need("parquet", "pyarrow", path) from error
