"""Its place puts this folder on sys.path, so that tests import what they share (`tiny`, `batches`) by name."""
