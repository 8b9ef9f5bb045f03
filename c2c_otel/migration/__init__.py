"""From c2cwsgiutils to c2c-otel: what has which name now, and how the files of an application are rewritten.

`names` is the one table; `python`, `ini`, `docker`, `documents` and `dependencies` each know one kind of file and are
pure: text in, `change.Rewritten` out. `files` finds the files and says which kind each is; `run` writes.
Behind ``c2c-otel migrate`` (`c2c_otel.commands.migrate`).
"""
