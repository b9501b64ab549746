"""The tables and functions of streams, as numbered files: each takes the schema from one version to the next."""
