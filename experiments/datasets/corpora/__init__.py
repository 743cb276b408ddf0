"""The original data sets, which are downloaded or read from files of the user."""
