"""Proposals of the Segment Anything Model (Kirillov et al., ICCV 2023)."""
