"""What the data is allowed to look like, whether it does, and how far it has moved.

One module a concept; import from the modules, they are cheap until a function is called:

- :mod:`mlcicd.data.source`: `open_source(path)` binds a table to a locked-down, bounded-memory engine.
- :mod:`mlcicd.data.frames`: `open_frame(frame)` binds a pandas, polars or Arrow frame to it.
- :mod:`mlcicd.data.database`, :mod:`mlcicd.data.remote`: copied once to where the engine reads.
- :mod:`mlcicd.data.spark`: `open_spark(path)`, `open_spark_frame(frame)`: the same rules on Spark.
- :mod:`mlcicd.data.schema`: `load_schema(path)`, the user's `schema.yaml`.
- :mod:`mlcicd.data.checks`: `run_checks(source, schema)`, the table against its schema.
- :mod:`mlcicd.data.infer`: `infer_schema(source)` writes a commented schema.
- :mod:`mlcicd.data.leakage`: `leakage_checks(train, holdout, ...)`.
- :mod:`mlcicd.data.profile`, :mod:`mlcicd.data.drift`: what a table looked like, and how far it has moved.
- :mod:`mlcicd.data.figures`: small pictures of the drifted columns.
"""
