"""One build at a time: a living one is left alone, a dead one is not waited for longer than it takes to tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs import one_at_a_time
from hpcvideo.shards.build_lock import LOCK, BuildLock, forget_lock


def left_by(folder: Path, host: str, process: int, namespace: str = "elsewhere") -> Path:
    path = folder / LOCK
    path.write_text(json.dumps({"host": host, "process": process, "namespace": namespace, "build": "x"}))
    return path


def test_it_is_gone_after_the_build(tmp_path):
    with BuildLock(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), BuildLock(tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_second_build_on_this_host_is_refused_while_the_first_one_lives(tmp_path):
    code = f"import time; from pathlib import Path; from hpcvideo.shards.build_lock import BuildLock\n" \
           f"with BuildLock(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(600)"  # fmt: skip
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"process {first.pid} on .* is building into this folder now"), BuildLock(tmp_path):
        pass
    first.kill()
    begin = time.monotonic()
    with BuildLock(tmp_path):  # a zombie is dead
        pass
    assert time.monotonic() - begin < one_at_a_time.DEAD_SECONDS / 2
    first.wait()
    first.stdout.close()


def test_a_build_of_another_host_lives_as_long_as_its_time_goes_on(tmp_path):
    path = left_by(tmp_path, "elsewhere", os.getpid())
    end, said = threading.Event(), []

    def beat() -> None:
        while not end.wait(0.3):
            os.utime(path)

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(InputError, match="on elsewhere is building"), BuildLock(tmp_path, said.append, dead_seconds=30):
        pass
    end.set()
    beating.join()
    assert "was building into" in said[0]
    assert path.exists()
    with BuildLock(tmp_path, dead_seconds=1.2) as lock:  # now its time stands still
        lock.check()
    assert not list(tmp_path.iterdir())


def test_a_process_of_the_same_number_in_another_container_is_not_taken_for_the_build(tmp_path):
    said: list[str] = []
    left_by(tmp_path, os.uname().nodename, os.getpid(), "pid:[1]")
    with BuildLock(tmp_path, said.append, dead_seconds=0.5):
        assert len(said) == 1


def test_a_lock_cut_short_counts_as_one_of_a_host_unknown(tmp_path):
    (tmp_path / LOCK).write_text("{")
    with BuildLock(tmp_path, dead_seconds=0.5):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_a_look_at_the_file_notices_at_once_that_it_was_taken(tmp_path):
    with BuildLock(tmp_path) as lock:
        lock.confirm()
        content = (tmp_path / LOCK).read_text()
        left_by(tmp_path, "elsewhere", 1)
        lock.check()
        with pytest.raises(OperationFailed, match="another build has taken this folder over"):
            lock.confirm()
        (tmp_path / LOCK).write_text(content)
        with pytest.raises(OperationFailed):
            lock.confirm()  # what was lost stays lost


def test_the_lock_beats_and_notices_that_it_was_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(one_at_a_time, "BEAT_SECONDS", 0.05)
    with BuildLock(tmp_path) as lock:
        first = (tmp_path / LOCK).stat().st_mtime_ns
        time.sleep(0.5)
        assert (tmp_path / LOCK).stat().st_mtime_ns > first
        lock.check()
        other = left_by(tmp_path, "elsewhere", 1)
        time.sleep(0.5)
        with pytest.raises(OperationFailed, match="another build has taken this folder over"):
            lock.check()
    assert other.exists()


def test_a_failing_job_forgets_its_own_lock_only(tmp_path):
    path = left_by(tmp_path, "a-b", 12)
    forget_lock(tmp_path, ["a-b-13", "a-12"])
    assert path.exists()
    forget_lock(tmp_path, ["a-b-13", "a-b-12"])
    assert not path.exists()
    forget_lock(tmp_path, ["a-b-12"])


def test_a_process_that_was_given_the_number_since_is_not_taken_for_the_build(tmp_path):
    with BuildLock(tmp_path):
        facts = json.loads((tmp_path / LOCK).read_text())
    said: list[str] = []
    for started in ("another boot 7", f"{facts['started']}0"):
        (tmp_path / LOCK).write_text(json.dumps(facts | {"started": started, "build": "x"}))
        with BuildLock(tmp_path, said.append):
            pass
    assert not said
    (tmp_path / LOCK).write_text(json.dumps(facts | {"build": "x"}))
    with pytest.raises(InputError, match="is building into this folder now"), BuildLock(tmp_path):
        pass
