"""Rules that a team wrote for another tool, as a `schema.yaml` to begin with.

One module a format. Each fills a :class:`mlcicd.data.imports.draft.Draft`; what has no counterpart here is never
dropped in silence: it stands as a comment at the top of the schema that is written.
"""

from mlcicd.data.imports.formats import FORMATS, import_schema

__all__ = ["FORMATS", "import_schema"]
