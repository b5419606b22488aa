"""SAPNet++: one point per object in, instance masks and a trained segmenter out.

The package uses no HTTP and no database. Import what you need from its modules; this file imports
none of them, so that `sapnet.data.annotations.coco` stays usable where torch must not be loaded.
"""

import os

__version__ = "0.1.0"

# OpenMP reads this when torch is loaded. By default its threads spin while they wait for each
# other: on a machine that is busy with anything else, a training step then takes three times as
# long (docs/log.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same for numpy's BLAS, whose threads always spin: for the small products of proposals they
# cost a third of the processor's time and save none. Images are worked on side by side instead.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
