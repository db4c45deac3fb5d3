"""FailureFolder: stores the documents about discarded batches in a folder, one file for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinstream.errors import ConfigError


class FailureFolder:
    """A folder in place of an on-failure destination.

    Args:
        folder: The folder. It is created if it does not exist.

    Raises:
        ConfigError: It cannot be created, or is not a folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"on_failure={folder}: must be a folder that can be written: {error.strerror}") from None

    def store(self, document: Mapping[str, Any]) -> Path:
        """Write a document. A reader never sees a part of it.

        Returns:
            Its file.

        Raises:
            OSError: It cannot be written.
        """
        info = document["KinesisBatchInfo"]
        stream = info["streamArn"].rpartition("/")[2]
        file = self._folder / f"{stream}-{info['shardId']}-{info['startSequenceNumber']}.json"
        unfinished = file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return unfinished.replace(file)
