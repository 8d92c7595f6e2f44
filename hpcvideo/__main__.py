"""`python -m hpcvideo`: the same as the command `hpcvideo`."""

from hpcvideo.cli.main import main

main()
