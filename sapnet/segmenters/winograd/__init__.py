"""3×3 convolutions on the CPU by Winograd's algorithm."""
