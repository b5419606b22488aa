"""Helpers that know nothing of masks: files, devices, processes, timing."""
