"""Tools of the build; run them as modules from the root: `python -m scripts.proto`."""
