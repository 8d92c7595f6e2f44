"""Without an annotation file: SOURCE holds a folder a class, and each of them videos and frame folders."""

from __future__ import annotations

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.entry import Listed, Parsed
from hpcvideo.shards.inputs.tar_headers import DECOMPRESS_FIRST
from hpcvideo.shards.inputs.tree import Tree, video_stem


def read_class_folders(tree: Tree) -> Parsed:
    """The videos and frame folders of each class folder in order of names; a folder's name is the label.

    Raises InputError where there is no class, a class is empty, or a compressed tar file lies there.
    """
    source = tree.source
    _refuse_compressed(tree, "")
    classes = sorted(name for name, is_folder in tree.children("").items() if is_folder and not name.startswith("."))
    if not classes:
        raise InputError(f"{source}: no class folders; pass --annotations FILE, or lay videos out as SOURCE/class/video")
    videos = []
    for label in classes:
        _refuse_compressed(tree, label)
        entries = sorted((name, is_folder) for name, is_folder in tree.children(label).items() if not name.startswith("."))
        names = [name for name, is_folder in entries if is_folder or video_stem(name) is not None]
        if not names:
            deeper = any(is_folder for is_folder in tree.children(label).values())
            advice = too_high(tree, label) if deeper else "fill it or move it away"
            raise InputError(f"{source / label}: neither videos nor frame folders in this class folder; {advice}")
        videos += [Listed(str(source), f"{label}/{name}", labels=(label,)) for name in names]
    return Parsed(videos)


def too_high(tree: Tree, folder: str) -> str:
    """What to do where the folders that should be classes hold the classes."""
    if tree.source.is_file():
        return "the top folders of a tar file are the classes; name its videos in a list (--annotations), or pack it anew"
    return f"is SOURCE one folder too high? try {tree.source / folder}"


def _refuse_compressed(tree: Tree, folder: str) -> None:
    for path in tree.compressed_tars(folder):
        raise InputError(f"{path}: is compressed; {DECOMPRESS_FIRST} (or move it out of SOURCE)")
