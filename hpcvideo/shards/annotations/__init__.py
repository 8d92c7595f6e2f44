"""Which videos there are and what they show: annotation files of many data sets, or a folder a class."""
