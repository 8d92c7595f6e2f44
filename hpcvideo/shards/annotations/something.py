"""Format `something`: the JSON files of Something-Something V2."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed, Part, name_of, read_json


def read_something(path: Path, part: Part) -> Parsed:
    """A list of entries with `id` and `template`; the label is the template without its square brackets.

    Videos are ID of any video suffix (.webm as published) or frame folders named ID, in SOURCE.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: a list of entries with id and template is expected")
    videos = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str | int):
            raise InputError(f"{where}: no `id` in it")
        where = f"{where} (id {entry['id']})"
        if not isinstance(entry.get("template"), str) or not entry["template"].strip():
            raise InputError(f"{where}: no `template` in it; only the train and validation parts have labels")
        label = entry["template"].replace("[", "").replace("]", "").strip()
        videos.append(Listed(where, folders=("",), stems=(name_of(str(entry["id"]), where),), labels=(label,)))
    return Parsed(videos)
