"""Progressive training (PGT): a long video as fragments one after another, each with the features that the last one left."""
