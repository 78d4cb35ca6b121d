"""The experiments of the projUNN paper: a case and a seed go in, rows of a figure and a table come out.

One file an experiment, with its `STUDY`: the task as the paper states it, networks moved by this library next
to networks that are not unitary, and a table that says what the paper reports. Frameworks and data sets are
imported in ``measure``, never by a module: every experiment can be listed where none of them is installed.
"""
