"""From video files and frame folders, on disk or in tar files, to the JPEG frames that a shard keeps."""
