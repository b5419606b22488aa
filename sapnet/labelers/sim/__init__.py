"""SIM: masks from boxes, by low-level cues and pseudo-masks of prototypes and instances."""
