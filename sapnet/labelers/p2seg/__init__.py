"""P2Seg: semantic and instance maps that teach each other, and masks read from both."""
