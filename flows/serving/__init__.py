"""`personsearch serve`: the search page of an index, and the same as an HTTP interface for programs.

`app.create_app(served, ...)` is the application; `running.run` serves it until it is stopped.
"""
