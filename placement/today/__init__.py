"""The placement that runs today: read from a file (`file`), judged by the twin beside the plan (`comparison`)."""
