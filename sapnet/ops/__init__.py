"""Pure functions on tensors and arrays, one idea a file."""
