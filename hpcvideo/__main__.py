"""`python -m hpcvideo`: the same as the command `hpcvideo`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """The command line."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["train"] and "--dry-run" not in arguments:
        # Imports take minutes on many nodes. A stop that is asked for meanwhile waits for training.stop_signals to take it.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGTERM))
    if arguments[:3] == ["doctor", "--rank", "--run"] and len(arguments) == 4:
        # Thousands of ranks may share a machine in a rehearsal: the rest of the command line would cost each one too much.
        _rehearse(arguments[3])
    else:
        from hpcvideo.cli.main import main as command_line

        command_line()


def _rehearse(run: str) -> None:
    from pathlib import Path

    from hpcvideo.cli.doctor_rank import rehearse_rank
    from hpcvideo.errors import HpcvideoError

    try:
        rehearse_rank(Path(run).absolute())
    except HpcvideoError as error:
        print(f"hpcvideo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
