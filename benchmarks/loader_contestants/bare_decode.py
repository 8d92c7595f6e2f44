"""The limit: simplejpeg decode and cv2 resize of JPEG bytes that lie in memory, in threads or in processes."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import cv2
import numpy as np
import simplejpeg
from clip_work import FRAMES, SIZE
from serve import Run, config, serve
from stored_frames import read_index


def count_clips(clips: list[list[bytes]], first: int, seconds: float) -> int:
    """How many clips one core decodes and resizes within `seconds`."""
    out = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    frame = np.empty((0, 0, 3), np.uint8)
    shapes = [simplejpeg.decode_jpeg_header(clip[0])[:2] for clip in clips]
    end, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        chosen = (first + done) % len(clips)
        if frame.shape[:2] != shapes[chosen]:
            frame = np.empty((*shapes[chosen], 3), np.uint8)
        for jpeg, place in zip(clips[chosen], out, strict=True):
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=frame)
            cv2.resize(frame, (SIZE, SIZE), dst=place, interpolation=cv2.INTER_LINEAR)
        done += 1
    return done


def in_threads(count: Callable[[int, float], int], workers: int) -> Run:
    """All workers in this process."""

    def run(seconds: float, _: int) -> tuple[int, float]:
        done = [0] * workers

        def work(place: int) -> None:
            done[place] = count(place, seconds)

        threads = [threading.Thread(target=work, args=(place,)) for place in range(workers)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done), time.perf_counter() - begin

    return run


def in_processes(count: Callable[[int, float], int], workers: int) -> Run:
    """A process a worker, forked."""
    context = multiprocessing.get_context("fork")

    def work(place: int, pipe: Connection) -> None:
        while True:
            pipe.send(count(place, pipe.recv()))

    pipes = []
    for place in range(workers):
        here, there = context.Pipe()
        context.Process(target=work, args=(place, there), daemon=True).start()
        pipes.append(here)

    def run(seconds: float, _: int) -> tuple[int, float]:
        begin = time.perf_counter()
        for pipe in pipes:
            pipe.send(seconds)
        done = sum(pipe.recv() for pipe in pipes)
        return done, time.perf_counter() - begin

    return run


def main() -> None:
    facts = config()
    clips = [video.centre_frames(FRAMES) for video in read_index(facts["index"])]
    workers = facts["workers"]

    def count(place: int, seconds: float) -> int:
        return count_clips(clips, place * len(clips) // workers, seconds)

    run = (in_threads if facts["kind"] == "thread" else in_processes)(count, workers)
    run(0.2, 1)
    serve(run)


if __name__ == "__main__":
    main()
