"""Multi-level affinity refinement of soft masks (MLAR, SAPNet++ section 3.3.2)."""
