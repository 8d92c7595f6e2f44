"""What is learned: the data it needs, its loss and its metric."""

from hpcvideo.tasks.protocol import Task
from hpcvideo.tasks.registry import create_task, known_tasks

__all__ = ["Task", "create_task", "known_tasks"]
