"""`hpcvideo shards`: one file a command; commands.py puts them together."""
