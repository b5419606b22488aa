"""Tasks of CVAT: their points to a data set, masks back into them, and a model as a function.

Needs the extra `cvat`: CVAT's side is its own SDK.
"""
