"""Files from outside: read within a limit, parsed strictly, held to a schema, shown without control characters.

No other module of this project opens a file to parse it. Whatever is wrong with a file is a `FileRefused`, which says
which file, which field of it, what was there and what was expected.
"""

from harness.files.refused import FileRefused

__all__ = ["FileRefused"]
