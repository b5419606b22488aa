"""Masks that trainings delivered, their review, and the data sets made from it."""
