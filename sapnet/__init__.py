"""SAPNet++: one point per object in, instance masks and a trained segmenter out.

The package knows no HTTP and no database. Import what you need from its modules; this file
imports nothing, so that `sapnet.data.coco` stays usable where torch must not be loaded.
"""

__version__ = "0.1.0"
