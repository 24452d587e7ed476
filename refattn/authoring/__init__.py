"""The tool for authors: makes everything that is generated from one source, and runs notebooks.

    python -m refattn.authoring sync          write what is out of step
    python -m refattn.authoring sync --check  only name it; exit code 1 if there is any
    python -m refattn.authoring run FILE...   execute notebooks in place, and tidy them
    python -m refattn.authoring pin           write constraints.txt from the packages installed here
    python -m refattn.authoring lower-bounds  print pyproject.toml's lower bounds as constraints

Sources: pyproject.toml, refattn.catalog, notebooks/NN_name.ipynb, exercises/solutions/NN_name.ipynb.
Importing it needs the standard library only: the last command runs before anything is installed.
"""
