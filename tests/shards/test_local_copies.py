"""ShardSet(path, local=...): a shard's local copy is taken when it is there whole, and left when it is damaged."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from hpcvideo.errors import OperationFailed
from hpcvideo.shards import ShardSet, local_copy
from hpcvideo.shards.staging.leaders import lone_leader
from hpcvideo.shards.staging.local_folder import set_folder
from hpcvideo.shards.staging.stage import Staging

pytestmark = pytest.mark.forks


@pytest.fixture
def staged(shard_set: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """(a copy of the set as the shared one, what it is staged to, the set's folder there)."""
    shared = Path(shutil.copytree(shard_set, tmp_path / "shared"))
    staging = Staging(shared, tmp_path / "node", lone_leader("n0"))
    staging.prepare()
    staging.copy()
    staging.close()
    return shared, tmp_path / "node", staging.local.path


def flip(folder: Path, jpeg: bytes) -> Path:
    """Flip a bit of the frame whose stored bytes these are."""
    for path in sorted(folder.glob("*.h5")):
        content = bytearray(path.read_bytes())
        if (at := content.find(jpeg)) >= 0:
            content[at + len(jpeg) // 2] ^= 1
            path.write_bytes(content)
            return path
    raise AssertionError("no shard holds this frame")


def files_open(folder: Path) -> set[str]:
    """Names of the shards below `folder` that this process has open."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = link.readlink()
        except OSError:
            continue
        if target.parent == folder and target.suffix == ".h5":
            found.add(target.name)
    return found


def test_frames_come_from_the_local_copy_alone(staged):
    shared, to, folder = staged
    wanted = [ShardSet(shared).read(index, [0, 3]) for index in range(9)]
    for path in shared.glob("*.h5"):
        path.unlink()
    shards = ShardSet(shared, local=to)
    assert all((shards.read(index, [0, 3]) == wanted[index]).all() for index in range(9))
    assert files_open(folder) == {f"shard-0000{number}.h5" for number in range(3)}
    assert shards.video(4).id == ShardSet(folder).video(4).id


def test_a_copy_that_comes_while_the_shared_file_is_open_is_taken(staged, monkeypatch):
    shared, to, folder = staged
    elsewhere = folder / "elsewhere.h5"
    (folder / "shard-00000.h5").rename(elsewhere)
    shards = ShardSet(shared, local=to)
    frames = shards.read(0, [0, 1])
    assert files_open(shared) == {"shard-00000.h5"}
    elsewhere.rename(folder / "shard-00000.h5")
    assert (shards.read(0, [0, 1]) == frames).all()
    assert files_open(shared) == {"shard-00000.h5"}, "it is looked for now and then, not at every frame"
    monkeypatch.setattr(local_copy, "LOOK_AGAIN_SECONDS", 0.0)
    assert (shards.read(0, [0, 1]) == frames).all()
    assert (files_open(shared), files_open(folder)) == (set(), {"shard-00000.h5"})


def test_a_damaged_copy_is_left_once_with_its_reason_and_deleted(staged, caplog):
    shared, to, folder = staged
    sound = ShardSet(shared)
    damaged = flip(folder, sound.read_jpegs(5, [3])[0])
    shards = ShardSet(shared, local=to)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert (shards.read(5, [0, 3]) == sound.read(5, [0, 3])).all()
    (record,) = caplog.records
    assert str(damaged) in record.message and f"video '{sound.video(5).id}', frame 3: checksum" in record.message
    assert not damaged.exists() and len(list(folder.glob("*.h5"))) == 2


def test_a_copy_that_was_brought_anew_meanwhile_is_not_deleted(staged):
    shared, to, folder = staged
    sound = ShardSet(shared)
    damaged = flip(folder, sound.read_jpegs(5, [3])[0])
    shards = ShardSet(shared, local=to)
    assert shards.video(5).num_frames
    damaged.rename(folder / "out of the way")
    shutil.copy(shared / damaged.name, damaged)
    assert (shards.read(5, [0, 3]) == sound.read(5, [0, 3])).all()
    assert damaged.exists()


def test_a_copy_that_another_thread_opened_once_more_is_left_with_the_first(staged):
    """Found by threads that met the damage at once: the second descriptor of the same bad copy was taken for a new one."""
    shared, to, folder = staged
    sound = ShardSet(shared)
    flip(folder, sound.read_jpegs(0, [3])[0])
    shards = ShardSet(shared, local=to, max_open_shards=1)
    of_one_thread = shards.open_video(0)
    shards.read(8, [0])  # evicts it
    shards.open_video(0)
    assert shards.drop_local_copy(of_one_thread, "found by the first")
    assert (shards.read(0, [0, 3]) == sound.read(0, [0, 3])).all()


def test_deleted_copies_do_not_stay_open(staged, monkeypatch):
    shared, to, folder = staged
    shards = ShardSet(shared, local=to)
    for index in range(9):
        shards.read(index, [0])
    monkeypatch.setattr(local_copy, "LOOK_AGAIN_SECONDS", 0.0)
    for name in ("shard-00000.h5", "shard-00001.h5"):
        (folder / name).unlink()
    shards.read(8, [0])
    assert files_open(folder) == {"shard-00002.h5"}
    open_files = map(_target, Path("/proc/self/fd").iterdir())
    assert not [target for target in open_files if target.startswith(str(folder)) and target.endswith("(deleted)")]
    assert (shards.read(0, [0]) == ShardSet(shared).read(0, [0])).all()


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_a_damaged_copy_that_cannot_be_deleted_is_left_alone_for_good(staged, caplog, monkeypatch):
    shared, to, folder = staged
    sound = ShardSet(shared)
    flip(folder, sound.read_jpegs(5, [3])[0])
    shards = ShardSet(shared, local=to, max_open_shards=1)

    def refuse(path, missing_ok=False):
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    for index in (5, 0, 5, 0, 5):  # another shard in between: the descriptor is opened anew
        assert (shards.read(index, [3]) == sound.read(index, [3])).all()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("damage", ["tables", "cut", "empty"])
def test_copies_whose_tables_are_damaged_or_cut_are_left_too(staged, damage, caplog):
    shared, to, folder = staged
    for path in folder.glob("*.h5"):
        content = path.read_bytes()
        path.write_bytes({"tables": bytes(len(content)), "cut": content[:-9], "empty": b""}[damage])
    shards, sound = ShardSet(shared, local=to), ShardSet(shared)
    assert all(shards.video(index) == sound.video(index) for index in range(9))
    assert all((shards.read(index, [2]) == sound.read(index, [2])).all() for index in range(9))
    assert len(caplog.records) == 3


def test_damage_of_the_set_itself_is_told_with_its_own_name(staged):
    shared, to, folder = staged
    jpeg = ShardSet(shared).read_jpegs(5, [3])[0]
    damaged = flip(shared, jpeg)
    assert ShardSet(shared, local=to).read(5, [3]).shape[0] == 1  # the copy is sound
    flip(folder, jpeg)
    with pytest.raises(OperationFailed, match=rf"^{damaged}: video .* frame 3: checksum differs"):
        ShardSet(shared, local=to).read(5, [3])


def test_a_video_that_was_opened_says_whether_there_is_another_copy(staged):
    shared, to, _ = staged
    shards = ShardSet(shared, local=to)
    video = shards.open_video(4)
    assert shards.drop_local_copy(video, "its frame 2 does not decode")
    assert shards.drop_local_copy(video, "the same, from another thread")  # what it read was the copy
    assert not shards.drop_local_copy(shards.open_video(4), "still")


def test_a_folder_of_another_user_is_not_read(staged, monkeypatch):
    shared, to, folder = staged
    monkeypatch.setattr(os, "getuid", lambda: shared.stat().st_uid + 1)
    shards = ShardSet(shared, local=to)
    shards.read(0, [0])
    assert (files_open(shared), files_open(folder)) == ({"shard-00000.h5"}, set())


def test_threads_that_meet_the_damage_at_once_all_get_sound_frames(staged):
    shared, to, folder = staged
    sound = ShardSet(shared)
    wanted = [sound.read(index, [0, 3]) for index in range(9)]
    for index in range(0, 9, 2):
        flip(folder, sound.read_jpegs(index, [3])[0])
    shards = ShardSet(shared, local=to, max_open_shards=2)
    failures: list[BaseException] = []

    def read(first: int) -> None:
        try:
            for step in range(40):
                index = (first + step) % 9
                np.testing.assert_array_equal(shards.read(index, [0, 3]), wanted[index])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def read_in_child(shards: ShardSet, answers: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    folder = set_folder(Path(str(shards._local)), shards.manifest.shards)
    answers.put(([int(shards.read(index, [0, 1]).sum()) for index in range(9)], len(files_open(folder))))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_take_the_local_copies_too(staged, method):
    shared, to, folder = staged
    sums = [int(ShardSet(shared).read(index, [0, 1]).sum()) for index in range(9)]
    shards = ShardSet(shared, local=to)
    shards.read(0, [0])
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=read_in_child, args=(shards, answers))
    child.start()
    assert answers.get() == (sums, 3)
    child.join()
    assert child.exitcode == 0
    copy = pickle.loads(pickle.dumps(shards))
    copy.read(0, [0])
    assert files_open(folder) == {"shard-00000.h5"}
