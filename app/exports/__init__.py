"""Exports of masks into the formats of other tools."""
