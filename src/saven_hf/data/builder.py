"""The builder behind `load_dataset("savenvid")` and `load_dataset("avbench")`.

It is datasets' own parquet builder, which streams, shards and selects columns, and it finds the videos that rows give
by reference. What is loaded is a small set inside this package, so that everything works offline on a fresh machine;
`data_dir` names another folder that `saven build`, `dataset_scripts/` or `hub_folder` wrote.

Only `register` imports this module, and only when a dataset of ours is asked for: it needs the datasets library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import datasets
import pyarrow
from datasets.data_files import DataFilesDict
from datasets.load import BuilderConfigsParameters, DatasetModule
from datasets.packaged_modules.parquet import parquet

from ..version import __version__
from .hub_folder import found_file, shards, splits
from .messages import DataError
from .schema import CONFIGS


EMBEDDED = Path(__file__).parent / "embedded"


@dataclass
class FolderConfig(parquet.ParquetConfig):
    """Options of `load_dataset("savenvid", ...)`, besides those of parquet (`columns`, `filters`, ...).

    Attributes:
        media_dir: folder of the media that rows name; by default the folder of the dataset.
        verify: compare media with their references by "size", "sha256" or not ("none").
        root: folder of the dataset; set by `dataset_module`.
    """

    media_dir: str | None = None
    verify: str = "size"
    root: str = ""


class SAVEnVid(parquet.Parquet):
    """Rows of a folder of datasets, with videos that are given by reference found among the media."""

    BUILDER_CONFIG_CLASS = FolderConfig

    def _generate_tables(self, files, *arguments, **options) -> Iterator[tuple]:
        columns = self.config.columns
        if columns is not None and {"video", "videos"} & set(columns) and "media" not in columns:
            raise DataError("the column 'media' says where videos are: select it beside them.", self.config.root)
        for key, table in super()._generate_tables(files, *arguments, **options):
            yield key, self._with_videos(table)

    def _with_videos(self, table: pyarrow.Table) -> pyarrow.Table:
        column = next((name for name in ("video", "videos") if name in table.column_names), None)
        if column is None or table["media"].null_count == len(table):
            return table
        media_dir = self.config.media_dir or self.config.root

        @cache
        def found(name: str, sha256: str, size: int, origin: str | None) -> str:
            media = {"file": name, "sha256": sha256, "size": size, "origin": origin}
            return str(found_file(media, media_dir, self.config.verify))

        videos = []
        for media, video in zip(table["media"].to_pylist(), table[column].to_pylist(), strict=True):
            if not video and media is not None:
                path = found(*(media[name] for name in ("file", "sha256", "size", "origin")))
                video = {"bytes": None, "path": path}
                video = [video] if column == "videos" else video
            videos.append(video)
        at = table.schema.get_field_index(column)
        field = table.schema.field(at)
        return table.set_column(at, field, pyarrow.array(videos, field.type))


def dataset_module(name: str, data_dir: str | None = None) -> DatasetModule:
    """What `load_dataset` needs to know of a dataset: its builder, configurations, and a hash for its cache.

    Args:
        name: "savenvid" or "avbench".
        data_dir: a folder to load instead of the one in this package.

    Raises:
        DataError: the folder holds no dataset.
    """
    root = (EMBEDDED / name if data_dir is None else Path(data_dir).expanduser()).resolve()
    configs = []
    for config in CONFIGS:
        files = {split: list(map(str, shards(root, config, split))) for split in splits(root, config)}
        if files:
            data_files = DataFilesDict.from_patterns(files, base_path=str(root))
            configs.append(FolderConfig(name=config, data_files=data_files, root=str(root)))
    if not configs:
        raise DataError(
            "there is no data/<config>/<split>-*.parquet below this folder: give one that `saven build` or "
            "dataset_scripts/ wrote.",
            root,
        )
    default = "qa" if any(config.name == "qa" for config in configs) else None
    return DatasetModule(
        __name__,
        _fingerprint(root),
        {"dataset_name": name, "data_dir": None, "data_files": None},
        BuilderConfigsParameters(builder_configs=configs, default_config_name=default),
    )


def _fingerprint(root: Path) -> str:
    """Of this code, the rows and where they lie. Unpacking a wheel may give all its files one time, so its few rows
    are hashed themselves; of a user's folder, which may be large, sizes and times are, as datasets does."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(f"{__version__} {datasets.__version__} {root}".encode())
    for path in sorted(root.glob("data/*/*.parquet")):
        digest.update(path.relative_to(root).as_posix().encode())
        if root.is_relative_to(EMBEDDED):
            digest.update(path.read_bytes())
        else:
            status = path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
