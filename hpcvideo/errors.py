"""The ways a command can end before its work is done; everything else is a defect and keeps its traceback."""


class HpcvideoError(Exception):
    """An expected failure. Its text is one sentence or two: what, where, and what to do about it."""

    exit_code = 1


class InputError(HpcvideoError):
    """What the user gave cannot be used (a config, an argument, a list, a shard set): exit code 2."""

    exit_code = 2


class OperationFailed(HpcvideoError):
    """What was asked for is sound but did not work out (disk full, corrupt bytes, a job that failed): exit code 1."""

    exit_code = 1


class Stopped(HpcvideoError):
    """It was asked to stop, as before a time limit, and left what the same command goes on from: exit code 75.

    EX_TEMPFAIL of sysexits.h: a batch script can tell it from a failure and requeue itself.
    """

    exit_code = 75


class StoppedForGood(HpcvideoError):
    """It was asked to stop and not to come back, by the file `stop` in its run directory: exit code 93.

    A batch script starts neither itself nor the later jobs of its chain again.
    """

    exit_code = 93
